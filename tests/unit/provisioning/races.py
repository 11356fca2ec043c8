# SPDX-License-Identifier: Apache-2.0
"""Two controllers in every interleaving: one is stopped before one of its calls.

While it stands there, another one does something; then it goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from unittest import mock

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.provisioning import deletion as deleting
from csi_driver.provisioning.requests import SnapshotRequest
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from tests.unit.provisioning.family import block
from tests.unit.provisioning.family import places
from tests.unit.provisioning.worlds import Controller
from tests.unit.provisioning.worlds import World

type Work[T] = Callable[[Controller], T]
type Disturbances = Mapping[int, Callable[[], None]]


@dataclasses.dataclass(frozen=True, slots=True)
class Ended[T]:
    """How it ended: the answer, or the error; and the calls that were made."""

    answer: T | None
    error: DriverError | None
    calls: list[str]


def raced[T](world: World, work: Work[T], disturbances: Disturbances) -> Ended[T]:
    """Work, with something done by others before the calls of these numbers.

    Who works stands still meanwhile and does not close what it has open, so that
    a delete would wait for nothing.
    """

    def watch(number: int, name: str) -> None:
        del name
        if number in disturbances:
            with mock.patch.object(deleting, "PASSING_SECONDS", 0.0):
                disturbances[number]()

    steps = Steps(Fault(0), watch)
    controller = world.controller(FaultyConnector(world.connector, steps))
    try:
        answer, error = work(controller), None
    except DriverError as caught:
        answer, error = None, caught
    controller.shared.close()
    return Ended(answer, error, steps.names)


def calls_of[T](world: World, work: Work[T]) -> list[str]:
    """Return the calls that work takes when nobody disturbs it."""
    ended = raced(world, work, {})
    assert ended.error is None
    assert len(ended.calls) > 3
    return ended.calls


def calls_of_snapshot(world: World, volume_id: VolumeId) -> int:
    """Return how many calls a snapshot takes; one named "whole" is taken."""
    request = SnapshotRequest("whole", volume_id)
    return len(calls_of(world, lambda c: c.volumes.create_snapshot(request)))


def tried(*calls: Callable[[], object]) -> Callable[[], None]:
    """Return what makes all these calls; one that has to wait is let go."""

    def run() -> None:
        for call in calls:
            try:
                call()
            except (PendingError, PreconditionError):
                continue

    return run


def deletion(world: World, *doomed: VolumeId | SnapshotId) -> Callable[[], None]:
    """Return what deletes these, as far as possible, and collects."""
    volumes = world.volumes

    def delete(each: VolumeId | SnapshotId) -> None:
        if isinstance(each, SnapshotId):
            volumes.delete_snapshot(each)
        else:
            volumes.delete(each)

    return tried(*[lambda each=each: delete(each) for each in doomed], world.collect)


class Mkfs:
    """What a node does to a fresh volume: a filesystem, made in two parts."""

    def __init__(self, world: World, volume_id: VolumeId) -> None:
        self._world = world
        self._volume_id = volume_id

    def begin(self) -> None:
        """Note that it is being made, and write half of it."""
        self._world.change(self._volume_id, filesystem=FilesystemState.MAKING)
        self._world.write_raw(self._volume_id, places()[0], block("a filesystem"))

    def finish(self) -> None:
        """Write the rest of it, and note that it is there."""
        for offset in places()[1:]:
            self._world.write_raw(self._volume_id, offset, block("a filesystem"))
        self._world.change(self._volume_id, filesystem=FilesystemState.EXT4)


def raced_by_mkfs[T](
    world: World, volume_id: VolumeId, work: Work[T], *, begin: int, finish: int
) -> None:
    """Work, while mkfs begins before one call and ends before another; it may wait."""
    mkfs = Mkfs(world, volume_id)
    ended = raced(world, work, {begin: mkfs.begin, finish: mkfs.finish})
    if ended.answer is None:
        assert isinstance(ended.error, PendingError)
        if finish > len(ended.calls):
            mkfs.finish()


def require_right(state: FilesystemState, content: set[str]) -> None:
    """Check that a snapshot or clone has what its record says."""
    expected = {
        FilesystemState.NONE: {""},
        FilesystemState.EXT4: {"a filesystem"},
    }
    assert content == expected[state]


def pairs(calls: int, step: int = 1) -> Iterator[tuple[int, int]]:
    """Go through all pairs of calls between which a mkfs may run."""
    for first in range(1, calls + 1, step):
        for second in range(first + 1, calls + 2, step):
            yield first, second
