# SPDX-License-Identifier: Apache-2.0
"""One handle of a process at a time changes the snapshots of an image."""

from __future__ import annotations

import threading
import time

import pytest

from csi_driver.domain.errors import PendingError
from csi_driver.images.turns import Turns


def test_images_do_not_wait_for_each_other() -> None:
    turns = Turns()
    turns.take("one", seconds=0)
    turns.take("another", seconds=0)


def test_a_turn_that_is_not_given_back_is_not_waited_for_for_ever() -> None:
    turns = Turns()
    turns.take("one", seconds=0)
    with pytest.raises(PendingError, match="image one: another call"):
        turns.take("one", seconds=0.01)
    turns.give_back("one")
    turns.take("one", seconds=0)


def test_no_two_have_the_turn_at_once() -> None:
    turns, present, most = Turns(), 0, 0

    def work() -> None:
        nonlocal present, most
        for _ in range(50):
            turns.take("one")
            present += 1
            time.sleep(0.0001)
            most = max(most, present)
            present -= 1
            turns.give_back("one")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, present) == (1, 0)
