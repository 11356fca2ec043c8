# SPDX-License-Identifier: Apache-2.0
"""A call to Ceph that is carried out, and whose caller is told of a failure.

Until it hears of that, others may have done all that they can.  A volume that was
answered with is never taken away by the one that believes to have failed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.images.records import RECORD_KEY
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from tests.unit.provisioning.halves import ImpatientWorld
from tests.unit.provisioning.halves import Prepare
from tests.unit.provisioning.halves import half_made
from tests.unit.provisioning.halves import halves
from tests.unit.provisioning.halves import soon
from tests.unit.provisioning.halves import sweep
from tests.unit.provisioning.test_abandoned_races import MOST
from tests.unit.provisioning.test_abandoned_races import clone_of_snapshot
from tests.unit.provisioning.test_abandoned_races import clone_of_volume
from tests.unit.provisioning.test_abandoned_races import plain
from tests.unit.provisioning.test_abandoned_races import require_collected
from tests.unit.provisioning.test_abandoned_races import require_made
from tests.unit.provisioning.test_interrupted import forget_the_dead

LOST = [
    UnavailableError("no answer"),  # as after an operation timeout of librados
    ConflictError("it is otherwise"),  # as one that was repeated may find it
]


class LostAnswer(Steps):
    """One call is carried out and others act; then it is told to have failed."""

    def __init__(self, at: int, error: DriverError, others: Callable[[], None]) -> None:
        super().__init__(Fault(0))
        self._at = at
        self._error = error
        self._others = others

    def run[**P, R](
        self, name: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        result = super().run(name, call, *args, **kwargs)
        if len(self.names) == self._at:
            self._others()
            raise self._error
        return result


@pytest.mark.timeout(300)
@pytest.mark.parametrize("error", LOST, ids=["unavailable", "conflict"])
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("prepare", [plain, clone_of_volume, clone_of_snapshot])
def test_a_create_whose_answer_was_lost_at_any_call(
    prepare: Prepare, error: DriverError, *, finished: bool
) -> None:
    for at in range(1, MOST):
        world = ImpatientWorld()
        request = prepare(world)
        found: list[VolumeInfo] = []

        def others() -> None:
            if finished:
                found.append(soon(lambda: world.volumes.create(request)))  # noqa: B023
            else:
                sweep(world)  # noqa: B023

        steps = LostAnswer(at, error, others)
        controller = world.controller(FaultyConnector(world.connector, steps))
        with contextlib.suppress(PendingError, FencedError, type(error)):
            found.append(controller.volumes.create(request))
        require_made(world, request, *found)
        if at > len(steps.names):
            break
    assert at > 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("prepare", [plain, clone_of_volume])
def test_a_collector_whose_answer_was_lost_at_any_call(prepare: Prepare) -> None:
    answered = 0
    for at in halves(prepare, step=2):
        for call in range(1, MOST):
            world, request = half_made(prepare, at)
            found: list[VolumeInfo] = []

            def create() -> None:
                found.append(soon(lambda: world.volumes.create(request)))  # noqa: B023

            steps = LostAnswer(call, LOST[0], create)
            controller = world.controller(FaultyConnector(world.connector, steps))
            with contextlib.suppress(UnavailableError):
                sweep(world, controller)
            forget_the_dead(world)
            sweep(world)
            soon(lambda: require_collected(world))  # noqa: B023
            require_made(world, request, *found)
            answered += len(found)
            if call > len(steps.names):
                break
    assert answered > 20


def test_a_volume_that_was_deleted_meanwhile_keeps_its_tombstone() -> None:
    """Its header and key ring are the collector's to destroy, before the image."""
    world = ImpatientWorld()
    request = plain(world)

    def others() -> None:
        made = soon(lambda: world.volumes.create(request))
        world.volumes.delete(made.volume_id)

    steps = LostAnswer(filing(), LOST[0], others)
    controller = world.controller(FaultyConnector(world.connector, steps))
    made = controller.volumes.create(request)
    space = world.store.pool("rbd").namespaces[""]
    records = [
        Record.from_json(each.metadata[RECORD_KEY]) for each in space.images.values()
    ]
    assert {each.state for each in records} == {VolumeState.READY, VolumeState.DELETED}
    require_made(world, request, made)


def filing() -> int:
    """Return the call of a create that files its image's id."""
    world = ImpatientWorld()
    steps = Steps(Fault(0))
    controller = world.controller(FaultyConnector(world.connector, steps))
    controller.volumes.create(plain(world))
    first = steps.names.index("pool.swap_entries")
    return steps.names.index("pool.swap_entries", first + 1) + 1
