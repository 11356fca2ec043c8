# SPDX-License-Identifier: Apache-2.0
"""The collector gives up a volume at the moment in which a call goes on with it.

Either one stands still before each of its calls, while the other does all it can.
What comes out is the finished volume, or a refusal after which the next call makes
it; a volume that was answered with is never taken away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Collection

import pytest

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import CapacityRange
from csi_driver.images.records import RECORD_KEY
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import plain_request
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.halves import ImpatientWorld
from tests.unit.provisioning.halves import Prepare
from tests.unit.provisioning.halves import all_images
from tests.unit.provisioning.halves import calls_of_create
from tests.unit.provisioning.halves import half_made
from tests.unit.provisioning.halves import halves
from tests.unit.provisioning.halves import remove_volumes
from tests.unit.provisioning.halves import require_lasting
from tests.unit.provisioning.halves import soon
from tests.unit.provisioning.halves import sweep
from tests.unit.provisioning.races import Ended
from tests.unit.provisioning.races import raced
from tests.unit.provisioning.test_interrupted import forget_the_dead
from tests.unit.provisioning.test_interrupted import interrupted
from tests.unit.provisioning.worlds import FakeWorld

type Change = Callable[[CreateRequest], CreateRequest]

MOST = 150


def plain(world: FakeWorld) -> CreateRequest:
    return world.plaintext("one", SIZE)


def clone_of_volume(world: FakeWorld) -> CreateRequest:
    return plain_request(world, plain_volume(world, "source"), "one")


def clone_of_snapshot(world: FakeWorld) -> CreateRequest:
    source = world.snapshot(plain_volume(world, "source"), "snap")
    return plain_request(world, source, "one")


def clone_elsewhere(world: FakeWorld) -> CreateRequest:
    request = clone_of_volume(world)
    place = {"pool": "rbd2", "radosNamespace": ""}
    return dataclasses.replace(request, parameters={**request.parameters, **place})


KINDS = [plain, clone_of_volume, clone_of_snapshot]


def same(request: CreateRequest) -> CreateRequest:
    return request


def larger(request: CreateRequest) -> CreateRequest:
    return dataclasses.replace(request, capacity=CapacityRange(2 * SIZE))


def empty(request: CreateRequest) -> CreateRequest:
    return dataclasses.replace(request, source=None)


def text_of(request: CreateRequest) -> str:
    return "the source's" if request.source else ""


def require_answer(ended: Ended[VolumeInfo]) -> None:
    """Only what tells the caller to come again may stand for the volume."""
    assert ended.error is None or isinstance(ended.error, PendingError), ended


def require_made(
    world: ImpatientWorld, request: CreateRequest, *found: VolumeInfo | None
) -> None:
    """Check that the next call answers, with what was answered before."""
    made = soon(lambda: world.volumes.create(request))
    assert all(each is None or each == made for each in found)
    forget_the_dead(world)
    require_lasting(world, made, text_of(request))


def created_amid(
    world: ImpatientWorld, request: CreateRequest, sweeps: Collection[int]
) -> Ended[VolumeInfo]:
    """Create while others sweep before the calls of these numbers; check the end."""
    ended = raced(
        world,
        lambda controller: controller.volumes.create(request),
        dict.fromkeys(sweeps, lambda: sweep(world)),
    )
    require_answer(ended)
    require_made(world, request, ended.answer)
    world.close()
    return ended


@pytest.mark.timeout(300)
@pytest.mark.parametrize("prepare", [*KINDS, clone_elsewhere])
def test_a_create_that_is_taken_for_abandoned_once(prepare: Prepare) -> None:
    outcomes = set()
    for at in range(1, MOST):
        world = ImpatientWorld()
        request = prepare(world)
        ended = created_amid(world, request, {at})
        outcomes.add(type(ended.error))
        if at > len(ended.calls):
            break
    assert at > 20
    assert type(None) in outcomes


@pytest.mark.timeout(300)
@pytest.mark.parametrize("prepare", KINDS)
def test_a_create_that_is_taken_for_abandoned_again_and_again(
    prepare: Prepare,
) -> None:
    calls = len(calls_of_create(prepare))
    outcomes = set()
    for at in halves(prepare):
        world = ImpatientWorld()
        request = prepare(world)
        ended = created_amid(world, request, range(at, 40 * calls))
        outcomes.add(type(ended.error))
    assert outcomes >= {PendingError, type(None)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("prepare", "change"),
    [
        (plain, same),
        (plain, larger),
        (clone_of_volume, same),
        (clone_of_volume, empty),
        (clone_of_snapshot, larger),
    ],
)
def test_a_repeated_create_while_what_is_half_made_is_given_up(
    prepare: Prepare, change: Change
) -> None:
    outcomes = set()
    for at in halves(prepare, step=2):
        for call in range(1, MOST):
            world, begun = half_made(prepare, at)
            if "one" in world.names() and change is not same:
                break  # finished: nothing else can have its name
            request = change(begun)
            ended = created_amid(world, request, {call})
            outcomes.add(type(ended.error))
            if call > len(ended.calls):
                break
    assert outcomes >= {PendingError, type(None)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("prepare", "change"),
    [
        (plain, same),
        (plain, larger),
        (clone_of_volume, same),
        (clone_of_snapshot, empty),
    ],
)
def test_a_collector_that_gives_up_what_is_finished_meanwhile(
    prepare: Prepare, change: Change
) -> None:
    answered = 0
    for at in halves(prepare, step=2):
        for call in range(1, MOST):
            world, begun = half_made(prepare, at)
            if "one" in world.names() and change is not same:
                break  # finished: nothing else can have its name
            request = change(begun)
            found = []

            def create() -> None:
                try:
                    found.append(world.volumes.create(request))  # noqa: B023
                except PendingError:
                    return

            ended = raced(world, lambda c: sweep(world, c), {call: create})  # noqa: B023
            assert ended.error is None
            answered += len(found)
            require_made(world, request, *found)
            world.close()
            if call > len(ended.calls):
                break
    assert answered > 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("prepare", [plain, clone_of_volume])
def test_two_collectors_give_up_the_same(prepare: Prepare) -> None:
    for at in halves(prepare, step=2):
        for call in range(1, MOST):
            world, _ = half_made(prepare, at)
            finished = set(world.names())
            ended = raced(
                world,
                lambda c: sweep(world, c),  # noqa: B023
                {call: lambda: sweep(world)},  # noqa: B023
            )
            assert ended.error is None
            require_nothing_left(world, finished)
            world.close()
            if call > len(ended.calls):
                break


@pytest.mark.timeout(300)
@pytest.mark.parametrize("prepare", [plain, clone_of_volume])
def test_a_collector_that_dies_while_it_gives_up(prepare: Prepare) -> None:
    for at in halves(prepare, step=2):
        for call in range(1, MOST):
            world, _ = half_made(prepare, at)
            finished = set(world.names())
            died, _ = interrupted(world, lambda c: sweep(world, c), call)  # noqa: B023
            forget_the_dead(world)
            require_nothing_left(world, finished)
            if not died:
                break


def require_nothing_left(world: ImpatientWorld, finished: set[str]) -> None:
    """Check that the next collector leaves the source and what was finished alone."""
    sweep(world)
    soon(lambda: require_collected(world))
    names = world.names()
    assert set(names) <= {"source"} | finished
    assert len(all_images(world)) == len(names)
    for each in world.volumes.list("", 0).volumes:
        record = world.record(each.volume_id)
        assert record.children == ()
        assert not record.snapshots
    remove_volumes(world)


def require_collected(world: ImpatientWorld) -> None:
    """Collect; PendingError while another collector may still be at it."""
    world.collect()
    if list(world.collector.pending()):
        message = "not collected yet"
        raise PendingError(message)


@pytest.mark.timeout(300)
def test_no_call_locks_an_image_that_is_being_removed() -> None:
    """Ceph's library would bring back what it has removed already (18.2.7)."""
    locked = 0
    for at in halves(plain):
        for call in range(1, MOST):
            world, request = half_made(plain, at)
            steps = LockSteps(world, call)
            controller = world.controller(FaultyConnector(world.connector, steps))
            soon(lambda: controller.volumes.create(request))  # noqa: B023
            locked += steps.locked
            world.close()
            if call > len(steps.names):
                break
    assert locked > 20


class LockSteps(Steps):
    """Has others sweep before one call, and looks at what each lock is taken of."""

    def __init__(self, world: ImpatientWorld, at: int) -> None:
        super().__init__(Fault(0), self._watched)
        self._world = world
        self._at = at
        self.locked = 0

    def _watched(self, number: int, name: str) -> None:
        if number == self._at:
            sweep(self._world)
        if name == "image.acquire_lock":
            self.locked += 1
            for image in self._world.store.pool("rbd").namespaces[""].images.values():
                text = image.metadata.get(RECORD_KEY)
                if text and Record.from_json(text).state is VolumeState.COLLECTING:
                    assert not image.handles


@pytest.mark.timeout(300)
def test_an_encrypted_clone_is_taken_for_abandoned_at_any_time() -> None:
    def prepare(world: FakeWorld) -> CreateRequest:
        source = world.snapshot(volume(world, "source"), "snap")
        return clone_request(world, source, "one", secrets={**OTHER, **SOURCE})

    calls = calls_of_create(prepare)
    for at in range(calls.index("pool.clone_image"), len(calls) + 1, 4):
        world = ImpatientWorld()
        request = prepare(world)
        ended = raced(
            world,
            lambda c: c.volumes.create(request),  # noqa: B023
            {at: lambda: sweep(world)},  # noqa: B023
        )
        require_answer(ended)
        made = soon(lambda: world.volumes.create(request))  # noqa: B023
        assert ended.answer is None or ended.answer == made
        sweep(world)
        assert content_of(world, made.volume_id, OTHER) == {"the source's"}
        world.close()


def test_a_clone_whose_source_went_meanwhile_is_refused() -> None:
    """The half-made one could have been finished without it; it is given up."""
    world, request = half_made(clone_of_volume, last_half(clone_of_volume))
    assert world.names() == ["source"]
    (found,) = world.volumes.list("", 0).volumes
    world.volumes.delete(found.volume_id)
    sweep(world)
    world.collect_all()
    assert world.content() == {}
    with pytest.raises(NotFoundError):
        world.volumes.create(request)


def last_half(prepare: Prepare) -> int:
    """Return the last call at which a create leaves an image in `creating`."""
    calls = calls_of_create(prepare)
    return calls.index("image.acquire_lock") + 2
