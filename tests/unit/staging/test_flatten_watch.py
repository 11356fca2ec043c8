# SPDX-License-Identifier: Apache-2.0
"""What the node service tells of flattens that go on beside I/O."""

from __future__ import annotations

import pytest

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.datapath.messages import ExportStatus
from csi_driver.staging.flatten_watch import FlattenWatch
from tests.unit.staging.exports import ONE
from tests.unit.staging.exports import TWO
from tests.unit.staging.exports import Heard
from tests.unit.staging.exports import export

WAITING = FlattenStatus(FlattenState.WAITING)
VERIFYING = FlattenStatus(FlattenState.VERIFYING)
DONE = FlattenStatus(FlattenState.DONE)
IDLE = FlattenStatus()
FAILED = FlattenStatus(FlattenState.FAILED, reason="the pool is full")


def copying(done: int, total: int = 100) -> FlattenStatus:
    return FlattenStatus(FlattenState.COPYING, done, total)


class World:
    """A watch that has looked once, at nothing."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.watch = FlattenWatch(self.heard)
        self.watch.look([])

    def see(self, *exports: ExportStatus) -> list[str]:
        """Look; return what is told of it."""
        self.soon = self.watch.look(exports)
        return [reason for reason, _ in self.heard.take()]

    def states(self, *statuses: FlattenStatus) -> list[str]:
        told = []
        for each in statuses:
            told += self.see(export(flatten=each))
        return told


@pytest.fixture
def world() -> World:
    return World()


def test_a_flatten_is_told_from_start_to_end(world: World) -> None:
    states = IDLE, WAITING, copying(0, 0), copying(30), copying(55), copying(80)
    told = world.states(*states, VERIFYING, DONE, DONE)
    assert told == ["FlattenStarted", *["FlattenProgress"] * 3, "Flattened"]


def test_the_next_look_comes_soon_while_something_is_flattened(world: World) -> None:
    for state, soon in {
        IDLE: False,
        WAITING: True,
        copying(1): True,
        VERIFYING: True,
        DONE: False,
        FAILED: False,
    }.items():
        world.see(export(flatten=state))
        assert world.soon is soon, state


def test_one_that_ends_between_two_looks_is_told_to_have_ended(world: World) -> None:
    assert world.states(DONE) == ["Flattened"]


def test_a_failure_is_told_once_with_its_reason(world: World) -> None:
    world.states(copying(10))
    world.watch.look([export(flatten=FAILED)])
    (failed,) = world.heard.notices
    assert failed.message == "not flattened: the pool is full"
    world.heard.take()
    assert world.states(FAILED, FAILED) == []


@pytest.mark.parametrize("end", [FAILED, IDLE])
def test_a_second_try_is_told_from_its_start(world: World, end: FlattenStatus) -> None:
    world.states(copying(60), end)
    told = world.states(copying(10), copying(30), DONE)
    assert told == ["FlattenStarted", "FlattenProgress", "Flattened"]


def test_a_new_worker_begins_anew(world: World) -> None:
    world.states(copying(60))
    assert world.see(export(flatten=copying(61), pid=8)) == [
        "FlattenStarted",
        "FlattenProgress",
    ]


def test_a_worker_that_is_busy_is_not_forgotten(world: World) -> None:
    world.states(copying(60))
    assert world.see(export(busy=True)) == []
    assert world.soon
    assert world.states(copying(61)) == []


def test_volumes_are_told_of_apart(world: World) -> None:
    world.watch.look(
        [export(ONE, flatten=copying(60)), export(TWO, flatten=copying(1))]
    )
    assert world.heard.take() == [
        ("FlattenStarted", ONE),
        ("FlattenProgress", ONE),
        ("FlattenStarted", TWO),
    ]


def test_what_a_former_node_service_saw_is_not_told_again() -> None:
    heard = Heard()
    watch = FlattenWatch(heard)
    watch.look([export(ONE, flatten=copying(55)), export(TWO, flatten=DONE)])
    assert heard.take() == []
    watch.look([export(ONE, flatten=copying(56)), export(TWO, flatten=DONE)])
    assert heard.take() == []
    watch.look([export(ONE, flatten=copying(80)), export(TWO, flatten=DONE)])
    watch.look([export(ONE, flatten=DONE), export(TWO, flatten=DONE)])
    assert heard.take() == [("FlattenProgress", ONE), ("Flattened", ONE)]


def test_volumes_that_are_no_clones_or_dead_are_nothing_to_tell(world: World) -> None:
    assert world.see(export(flatten=None), export(TWO, alive=False)) == []
    assert not world.soon


def test_another_clients_flatten_is_told_with_a_warning(world: World) -> None:
    foreign = FlattenStatus(FlattenState.FOREIGN, 1, 100)
    world.watch.look([export(flatten=foreign)])
    (started,) = world.heard.notices
    assert "another Ceph client" in started.message
    assert world.states(IDLE, VERIFYING, DONE) == ["FlattenStarted", "Flattened"]
