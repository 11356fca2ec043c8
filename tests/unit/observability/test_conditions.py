# SPDX-License-Identifier: Apache-2.0
"""Conditions: what they say, and that no hang is waited for."""

from __future__ import annotations

import threading
import time

import pytest

from csi_driver.domain.errors import UnavailableError
from csi_driver.observability.conditions import Condition
from csi_driver.observability.conditions import Verdict
from csi_driver.observability.conditions import judge


def holds() -> None:
    """Hold."""


def fails() -> None:
    raise UnavailableError("no\nanswer")


def test_each_condition_is_one_line() -> None:
    verdicts = judge([Condition("probe", holds), Condition("datapath", fails)])
    assert [each.line() for each in verdicts] == [
        "ok probe",
        "failed datapath: no answer",
    ]


def test_an_error_without_words_is_a_failure_too() -> None:
    def silent() -> None:
        raise UnavailableError

    assert judge([Condition("x", silent)]) == [Verdict("x", "UnavailableError")]


def test_an_unforeseen_error_is_told_without_its_text() -> None:
    def breaks() -> None:
        raise RuntimeError("a key, perhaps")

    (verdict,) = judge([Condition("x", breaks)])
    assert "RuntimeError" in verdict.failure
    assert "key" not in verdict.failure


@pytest.fixture
def release() -> threading.Event:
    return threading.Event()


def test_a_hang_is_waited_for_once_and_by_one_thread(release: threading.Event) -> None:
    entered: list[int] = []

    def hangs() -> None:
        entered.append(threading.get_ident())
        release.wait(20)

    hanging, good = Condition("hangs", hangs), Condition("good", holds)
    try:
        begin = time.monotonic()
        for _ in range(5):
            verdicts = judge([hanging, good], seconds=0.1)
            assert [each.failure for each in verdicts] == ["no answer within 0.1 s", ""]
        assert time.monotonic() - begin < 2
        assert len(entered) == 1
    finally:
        release.set()
    assert judge([hanging], seconds=5)[0].failure == ""
    assert judge([hanging], seconds=5)[0].failure == ""
    assert len(entered) >= 2, "it is looked at again once the hang is over"


def test_conditions_are_looked_at_side_by_side() -> None:
    begin = time.monotonic()
    slow = [Condition(str(number), lambda: time.sleep(0.3)) for number in range(8)]
    assert not any(each.failure for each in judge(slow, seconds=5))
    assert time.monotonic() - begin < 1.5
