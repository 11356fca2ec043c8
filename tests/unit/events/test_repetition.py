# SPDX-License-Identifier: Apache-2.0
"""The same happening again and again, and floods of it."""

from __future__ import annotations

from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.kube.correlation import BURST
from csi_driver.kube.correlation import REFILL
from csi_driver.kube.correlation import WINDOW
from csi_driver.kube.events import EventCounts
from tests.unit.events.world import POD
from tests.unit.events.world import VOLUME
from tests.unit.events.world import WRONG
from tests.unit.events.world import World


def test_what_happens_again_raises_the_count(world: World) -> None:
    assert world.tell(WRONG, WRONG, WRONG) == EventCounts(posted=1, repeated=2)
    (event,) = world.server.events
    assert event["count"] == 3
    assert [verb for verb, _ in world.server.asked] == ["GET", "POST", "PATCH", "PATCH"]


def test_another_message_reason_or_object_is_another_event(world: World) -> None:
    other = Notice(Happening.WRONG_SECRET, VOLUME, "another")
    in_use = Notice(Happening.VOLUME_IN_USE, VOLUME, WRONG.message)
    pod = Notice(Happening.WRONG_SECRET, POD, WRONG.message)
    assert world.tell(WRONG, other, in_use, pod).posted == 4
    assert [event["count"] for event in world.server.events] == [1, 1, 1, 1]


def test_after_a_while_of_silence_it_is_a_new_event(world: World) -> None:
    world.tell(WRONG)
    world.clock.now += WINDOW - 1
    world.tell(WRONG)
    world.clock.now += WINDOW + 1
    world.tell(WRONG)
    assert [event["count"] for event in world.server.events] == [2, 1]


def test_an_event_whose_time_was_over_is_made_again(world: World) -> None:
    world.tell(WRONG, WRONG)
    world.server.events.clear()
    assert world.tell(WRONG) == EventCounts(posted=2, repeated=1)
    (event,) = world.server.events
    assert event["count"] == 3


def test_a_flood_about_one_object_is_bounded_and_counted(world: World) -> None:
    flood = [
        Notice(Happening.WRONG_SECRET, VOLUME, f"number {number}")
        for number in range(50)
    ]
    assert world.tell(*flood) == EventCounts(posted=BURST, limited=50 - BURST)
    assert len(world.server.events) == BURST
    # Nothing else is silenced by it, and neither is it for ever.
    fenced = Notice(Happening.HOLDER_FENCED, VOLUME, "fenced")
    other = Notice(Happening.WRONG_SECRET, POD, "wrong")
    assert world.tell(fenced, other).posted == BURST + 2
    world.clock.now += REFILL
    assert world.tell(WRONG, WRONG).posted == BURST + 3


def test_what_was_limited_is_in_the_next_count(world: World) -> None:
    world.tell(*([WRONG] * (BURST + 5)))
    (event,) = world.server.events
    assert event["count"] == BURST
    world.clock.now += REFILL
    world.tell(WRONG)
    assert event["count"] == BURST + 6
