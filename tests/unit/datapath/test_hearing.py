# SPDX-License-Identifier: Apache-2.0
"""A worker that stays for others' work hears of it until it closes the image."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from csi_driver.datapath import hearing as module
from csi_driver.datapath.hearing import Hearing
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import UnavailableError
from csi_driver.images.foreign import Message
from tests.unit.images.test_foreign import COMPLETE
from tests.unit.images.test_foreign import FLATTEN
from tests.unit.images.test_foreign import PROGRESS

type Heard = Callable[[bytes], None]


class Watch:
    """A watch whose end may come after a last message."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.closed = False

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for payload in self._image.at_the_end:
            self._image.say(payload)
        self._image.at_the_end = ()
        self._image.heard = None


class Image:
    """An image whose watchers are told what a test says."""

    def __init__(self) -> None:
        self.heard: Heard | None = None
        self.at_the_end: tuple[bytes, ...] = ()
        self.parent = True
        self.fenced = False
        self.watches: list[Watch] = []

    def has_parent(self) -> bool:
        if self.fenced:
            raise UnavailableError("fenced")
        return self.parent

    def watch(self, on_notify: Heard) -> Watch:
        self.heard = on_notify
        self.watches.append(Watch(self))
        return self.watches[-1]

    def say(self, payload: bytes) -> None:
        if self.heard is not None:
            self.heard(payload)


class Shown:
    """What the process's name would say."""

    def __init__(self) -> None:
        self.staying = False

    def show(self, *, staying: bool) -> None:
        self.staying = staying

    def __call__(self) -> bool:
        return self.staying


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    shown = Shown()
    monkeypatch.setattr(module, "show_staying", shown.show)
    monkeypatch.setattr(module, "_STAY_SECONDS", 0.01)
    monkeypatch.setattr(module, "_REMIND_SECONDS", 0.01)
    return shown


@pytest.fixture
def image() -> Image:
    return Image()


@pytest.fixture
def hearing(image: Image, shown: Shown) -> Hearing:
    del shown
    made = Hearing("vol", image)
    made.own(lambda: None)
    return made


def reset_in_time(shown: Shown) -> bool:
    deadline = time.monotonic() + 5
    while shown.staying and time.monotonic() < deadline:
        time.sleep(0.01)
    return not shown.staying


@pytest.mark.parametrize("begin", [FLATTEN, PROGRESS], ids=["asked", "going on"])
def test_it_stays_until_the_end_is_heard(
    hearing: Hearing, image: Image, shown: Shown, begin: bytes
) -> None:
    assert not hearing.must_stay()
    told: list[Message] = []
    hearing.tell(told.append)
    image.say(begin)
    assert hearing.must_stay()
    assert shown()
    image.say(COMPLETE)
    assert not hearing.must_stay()
    assert not shown()
    assert len(told) == 2


def test_the_name_goes_when_the_end_was_missed(
    hearing: Hearing, image: Image, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks, and librbd would not answer: time alone tells."""
    hearing._silence = 0.1
    monkeypatch.setattr(image, "has_parent", threading.Event().wait)
    image.say(FLATTEN)
    assert shown.staying
    assert reset_in_time(shown)
    image.say(PROGRESS)
    assert shown.staying
    assert reset_in_time(shown)


def test_a_missed_end_is_waited_for_shortly_without_a_parent(
    hearing: Hearing, image: Image, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLAT_SILENCE_SECONDS", 0.1)
    image.say(FLATTEN)
    image.parent = False
    hearing.await_end()
    assert not shown.staying


def test_others_work_elsewhere_is_no_reason(image: Image, shown: Shown) -> None:
    hearing = Hearing("vol", image)
    image.say(FLATTEN)
    assert not hearing.must_stay()

    def refuse() -> None:
        image.say(PROGRESS)
        raise InUseError("it is another's")

    with pytest.raises(InUseError):
        hearing.own(refuse)
    assert not hearing.must_stay()
    assert not shown.staying
    hearing.let_go()


def test_a_fenced_client_does_not_stay(
    hearing: Hearing, image: Image, shown: Shown
) -> None:
    image.say(FLATTEN)
    image.fenced = True
    hearing.let_go()
    assert not shown.staying


def test_a_request_in_the_last_moment_is_waited_for(
    hearing: Hearing, image: Image, shown: Shown
) -> None:
    image.at_the_end = (FLATTEN,)
    ended = threading.Thread(target=hearing.let_go)
    ended.start()
    deadline = time.monotonic() + 5
    while len(image.watches) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert ended.is_alive()
    assert shown()
    image.say(COMPLETE)
    ended.join(5)
    assert not ended.is_alive()
    assert not shown()
    assert [each.closed for each in image.watches] == [True, True]
