# SPDX-License-Identifier: Apache-2.0
"""Examinations end in time, whatever they look at, and say what was found."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Examination
from csi_driver.doctor.check import Status
from csi_driver.doctor.check import Topic
from csi_driver.doctor.check import examine
from csi_driver.domain.errors import UnavailableError

TOPIC = Topic("thing", "one")


def test_what_was_found_is_reported_in_order() -> None:
    report = examine(
        [
            Examination(TOPIC, lambda: [TOPIC.ok("good"), TOPIC.warning("odd", "do")]),
            Examination(TOPIC, list),
        ]
    )
    assert report.checks == (
        Check("thing", "one", Status.OK, "good"),
        Check("thing", "one", Status.WARNING, "odd", "do"),
    )
    assert report.ok
    assert report.all_ended


def test_a_failure_makes_the_report_one() -> None:
    report = examine([Examination(TOPIC, lambda: [TOPIC.failed("bad", "mend it")])])
    assert not report.ok


def test_an_error_of_the_driver_is_a_failed_check() -> None:
    def look() -> Iterator[Check]:
        yield TOPIC.ok("good")
        message = "cluster 'lab' did not answer"
        raise UnavailableError(message)

    report = examine([Examination(TOPIC, look)])
    assert [each.status for each in report.checks] == ["ok", "failed"]
    assert report.checks[1].found == "cluster 'lab' did not answer"


def test_a_bug_is_not_taken_for_a_finding() -> None:
    def look() -> Iterator[Check]:
        yield TOPIC.ok("good")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        examine([Examination(TOPIC, look)])


def test_what_does_not_end_is_left_behind() -> None:
    released = threading.Event()

    def look() -> Iterator[Check]:
        yield TOPIC.ok("the beginning")
        released.wait(30)

    begin = time.monotonic()
    examination = Examination(TOPIC, look, late="an OSD is down", patience=0.2)
    report = examine([examination, Examination(TOPIC, lambda: [TOPIC.ok("next")])])
    assert time.monotonic() - begin < 5
    released.set()
    assert [each.found for each in report.checks] == [
        *("the beginning", "no answer within 0.2 s", "next"),
    ]
    assert report.checks[1].remedy == "an OSD is down"
    assert not report.ok
    assert not report.all_ended


def test_a_generator_may_stop_after_what_was_found() -> None:
    reached = threading.Event()

    def examinations() -> Iterator[Examination]:
        yield Examination(TOPIC, lambda: [TOPIC.failed("no server")])
        if reached.is_set():
            yield Examination(TOPIC, lambda: [TOPIC.failed("another")])

    assert len(examine(examinations()).checks) == 1


@pytest.mark.parametrize("remedy", ["", "mend it"])
def test_checks_come_back_from_json(remedy: str) -> None:
    check = TOPIC.failed("bad", remedy)
    assert Check.from_json_object(check.to_json_object()) == check
    for name in ("check", "subject", "status", "found", "remedy"):
        fields = check.to_json_object()
        del fields[name]
        with pytest.raises(KeyError):
            Check.from_json_object(fields)
    with pytest.raises(ValueError, match="odd"):
        Check.from_json_object({**check.to_json_object(), "status": "odd"})
