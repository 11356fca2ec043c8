# SPDX-License-Identifier: Apache-2.0
"""Users are told of an export that died under them, and of no other."""

from __future__ import annotations

import pytest

from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Pod
from csi_driver.staging.loss_watch import LossWatch
from tests.unit.staging.exports import ONE
from tests.unit.staging.exports import TWO
from tests.unit.staging.exports import Heard
from tests.unit.staging.exports import export

POD = Pod("tenant", "web-0", "1")


class World:
    """A watch over published volumes."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.published: dict[VolumeId, tuple[Pod, ...]] = {ONE: (POD,)}
        self.watch = LossWatch(self.heard, lambda: self.published)


@pytest.fixture
def world() -> World:
    return World()


def test_a_death_is_told_once_on_claim_and_pods(world: World) -> None:
    assert not world.watch.look([export(ONE)])
    assert world.watch.look([export(ONE, alive=False)]), "the next look comes soon"
    assert world.heard.take() == []
    assert not world.watch.look([export(ONE, alive=False)])
    assert "was killed" in world.heard.notices[0].message
    assert "delete the pods" in world.heard.notices[0].message
    assert world.heard.take() == [("ExportLost", ONE), ("ExportLost", POD)]
    world.watch.look([export(ONE, alive=False)])
    assert world.heard.take() == []


def test_one_that_the_datapath_forgot_is_lost_too(world: World) -> None:
    for _ in range(3):
        world.watch.look([export(TWO)])
    assert "does not serve it any more" in world.heard.notices[0].message
    assert world.heard.take() == [("ExportLost", ONE), ("ExportLost", POD)]


def test_at_one_look_it_may_be_on_its_way(world: World) -> None:
    world.watch.look([])
    world.watch.look([export(ONE)])
    world.watch.look([])
    world.published.clear()
    world.watch.look([])
    assert world.heard.take() == []


def test_a_second_death_is_told_again(world: World) -> None:
    for alive in (False, False, True, False, False):
        world.watch.look([export(ONE, alive=alive)])
    assert world.heard.take() == [("ExportLost", ONE), ("ExportLost", POD)] * 2


def test_a_dead_export_that_nobody_uses_is_not_told(world: World) -> None:
    for _ in range(3):
        world.watch.look([export(ONE), export(TWO, alive=False)])
    assert world.heard.take() == []
