# SPDX-License-Identifier: Apache-2.0
"""How the claim of an Event is found."""

from __future__ import annotations

from typing import Any

import pytest

from csi_driver.kube.events import EventCounts
from tests.unit.events.world import PV
from tests.unit.events.world import VOLUME
from tests.unit.events.world import WRONG
from tests.unit.events.world import World


def test_a_claim_is_asked_for_once_in_a_while(world: World) -> None:
    world.tell(WRONG, WRONG)
    assert world.looked == [VOLUME]
    world.clock.now += 299
    world.tell(WRONG)
    assert world.looked == [VOLUME]
    world.clock.now += 2
    world.tell(WRONG)
    assert world.looked == [VOLUME, VOLUME]


@pytest.mark.parametrize(
    "bound",
    [
        {"driver": "another.csi.driver"},
        {"handle": "v1:lab:3::ffff"},
        {"claim": None},
        {"claim": ("Not A Namespace", "data", "")},
        {"claim": ("tenant-a", "../data", "")},
        None,
    ],
    ids=["driver", "handle", "unbound", "namespace", "name", "absent"],
)
def test_a_volume_that_is_not_provably_the_claims_gets_no_event(
    world: World, bound: dict[str, Any] | None
) -> None:
    world.server.volumes.clear()
    if bound is not None:
        given = {"handle": str(VOLUME), "claim": ("tenant-a", "data", ""), **bound}
        world.server.bind(PV, **given)
    assert world.tell(WRONG) == EventCounts(nameless=1)
    assert world.server.events == []
    # It is asked again, but not at once.
    world.server.bind(PV, str(VOLUME), ("tenant-a", "data", ""))
    assert world.tell(WRONG).nameless == 2
    world.clock.now += 61
    assert world.tell(WRONG).posted == 1


@pytest.mark.parametrize("status", [403, 503])
def test_a_claim_that_nobody_could_be_asked_for_is_a_loss(
    world: World, status: int
) -> None:
    """It is counted apart from volumes that have none, so that alerts tell of it."""
    world.server.refusing = status
    assert world.tell(WRONG) == EventCounts(failed=1)
    world.server.refusing = 0
    assert world.tell(WRONG) == EventCounts(failed=2)
    assert world.looked == [VOLUME], "for a minute nobody is asked again"
    world.clock.now += 61
    assert world.tell(WRONG) == EventCounts(failed=2, posted=1)


def test_a_volume_without_a_record_gets_no_event(world: World) -> None:
    world.names.clear()
    assert world.tell(WRONG) == EventCounts(nameless=1)
    assert world.server.asked == []
