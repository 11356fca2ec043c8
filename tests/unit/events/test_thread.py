# SPDX-License-Identifier: Apache-2.0
"""The thread that posts Events, and its end."""

from __future__ import annotations

import threading
import time

from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.kube.events import EventCounts
from tests.unit.events.world import CLAIM
from tests.unit.events.world import WRONG
from tests.unit.events.world import World


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_the_thread_posts_what_waits_and_ends(world: World) -> None:
    events = world.another()
    for number in range(5):
        events.tell(Notice(Happening.WRONG_SECRET, CLAIM, str(number)))
    before = threads().count("events")
    events.start()
    assert events.close(10)
    assert threads().count("events") == before
    assert len(world.server.events) == 5
    events.tell(WRONG)
    assert events.counts.dropped == 1, "nobody would post it any more"


def test_an_idle_thread_ends_at_once(world: World) -> None:
    events = world.another()
    events.start()
    begin = time.monotonic()
    assert events.close(10)
    assert time.monotonic() - begin < 1


def test_a_full_queue_does_not_keep_the_thread(world: World) -> None:
    events = world.another(most_waiting=2)
    for number in range(4):
        events.tell(Notice(Happening.WRONG_SECRET, CLAIM, str(number)))
    events.start()
    assert events.close(10)
    assert events.counts == EventCounts(posted=2, dropped=2)


def test_a_slow_server_does_not_hold_up_the_end(world: World) -> None:
    world.server.delay = 0.45
    events = world.another()
    for number in range(20):
        events.tell(Notice(Happening.WRONG_SECRET, CLAIM, str(number)))
    events.start()
    begin = time.monotonic()
    assert not events.close(0.3)
    assert time.monotonic() - begin < 1
    world.server.delay = 0.0
    assert events.close(20), "later it has ended, too"
