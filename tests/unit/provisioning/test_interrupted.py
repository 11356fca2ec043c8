# SPDX-License-Identifier: Apache-2.0
"""A controller that dies between any two calls to Ceph, on the fake.

A dead one makes no further call, not even to close a handle, so its watches
and its lock stay until it is fenced or the cluster has missed it for long
enough.  tests/ceph/provisioning kills real processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import RawSize
from csi_driver.images.connections import SharedConnections
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.port import Ceph
from csi_driver.images.values import NewImage
from csi_driver.provisioning.collection import pending
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.volumes import Volumes
from csi_driver.testing.ceph_fake_images import Instance
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from tests.unit.provisioning.worlds import Controller
from tests.unit.provisioning.worlds import FakeWorld
from tests.unit.provisioning.worlds import loaded
from tests.unit.provisioning.worlds import until_free

type Work = Callable[[Controller], object]

SMALL = 4 * MIB


class Killed(BaseException):
    """The process is gone."""


class LastSteps(Steps):
    """No step from number `at` on is carried out (0: all are)."""

    def __init__(self, at: int) -> None:
        super().__init__(Fault(0))
        self._at = at

    def run[**P, R](
        self, name: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        if self._at and len(self.names) + 1 >= self._at:
            raise Killed
        return super().run(name, call, *args, **kwargs)


def interrupted(world: FakeWorld, work: Work, at: int) -> tuple[bool, list[str]]:
    """Do something with a controller that dies at its Nth call.

    Returns whether it died, and the calls it made.
    """
    steps = LastSteps(at)
    controller = world.controller(FaultyConnector(world.connector, steps))
    try:
        work(controller)
    except Killed:
        return True, steps.names
    return False, steps.names


def forget_the_dead(world: FakeWorld) -> None:
    """Let the time pass after which the cluster forgets a client's watches."""
    with world.store.lock:
        dead: set[Instance] = {
            handle.instance
            for image in world.store.images()
            for handle in image.handles
        }
    for instance in dead:
        world.store.drop_handles(instance)


def steps_of(prepare: Callable[[FakeWorld], Work]) -> int:
    world = FakeWorld()
    died, calls = interrupted(world, prepare(world), 0)
    assert not died
    assert len(calls) > 3
    return len(calls)


def encrypted(world: FakeWorld) -> CreateRequest:
    return world.request("one", SMALL)


@pytest.mark.parametrize("kind", [encrypted, lambda w: w.plaintext("one", SMALL)])
def test_create_survives_death_at_every_call(
    kind: Callable[[FakeWorld], CreateRequest],
) -> None:
    steps = steps_of(lambda world: lambda c: c.volumes.create(kind(world)))
    for at in range(1, steps + 1):
        world = FakeWorld()
        request = kind(world)
        died, calls = interrupted(world, lambda c: c.volumes.create(request), at)  # noqa: B023
        assert died, calls
        made = until_free(lambda: world.volumes.create(request))  # noqa: B023
        record = world.record(made.volume_id)
        if request.secrets:
            with world.pool() as pool, loaded(pool, record) as image:
                assert image.size() == made.size
        with world.pool() as pool, pool.open_raw(record.image_id) as raw:
            assert raw.raw_size() == record.raw_size
        assert world.names() == ["one"]
        forget_the_dead(world)
        world.collect_all()
        assert len(world.images()) == 1, calls
        world.volumes.delete(made.volume_id)
        world.collect_all()
        assert world.content() == {}, calls


def deleting(world: FakeWorld) -> Work:
    made = world.volumes.create(encrypted(world))
    return lambda controller: controller.volumes.delete(made.volume_id)


def test_delete_survives_death_at_every_call() -> None:
    for at in range(1, steps_of(deleting) + 1):
        world = FakeWorld()
        made = world.volumes.create(encrypted(world))
        died, calls = interrupted(
            world,
            lambda c: c.volumes.delete(made.volume_id),  # noqa: B023
            at,
        )
        assert died, calls
        forget_the_dead(world)
        world.volumes.delete(made.volume_id)
        assert world.names() == []
        world.collect_all()
        assert world.content() == {}, calls


def test_create_after_a_delete_that_died_makes_another_volume() -> None:
    for at in range(1, steps_of(deleting) + 1):
        world = FakeWorld()
        made = world.volumes.create(encrypted(world))
        interrupted(world, lambda c: c.volumes.delete(made.volume_id), at)  # noqa: B023
        forget_the_dead(world)
        again = world.volumes.create(encrypted(world))
        world.volumes.delete(made.volume_id)
        if again.volume_id == made.volume_id:  # the delete had not come far enough
            with pytest.raises(NotFoundError):
                world.volumes.get(made.volume_id)
        else:
            assert world.volumes.get(again.volume_id) == again
            world.volumes.delete(again.volume_id)
        world.collect_all()
        assert world.content() == {}


def collecting(world: FakeWorld) -> Work:
    made = world.volumes.create(encrypted(world))
    world.volumes.delete(made.volume_id)
    return lambda c: c.collector.look("fake", "rbd", "")


def test_collecting_survives_death_at_every_call() -> None:
    for at in range(1, steps_of(collecting) + 1):
        world = FakeWorld()
        died, calls = interrupted(world, collecting(world), at)
        assert died, calls
        assert world.names() == []
        forget_the_dead(world)
        world.collect_all()
        assert world.content() == {}, calls


def test_an_image_that_was_never_filed_is_not_trusted(world: FakeWorld) -> None:
    """It may lack its object map or have the wrong striping."""
    claimed = Entry("one", "csi-vol-half-made")
    plan = world.request("one", SMALL)
    with world.pool() as pool:
        Directory(pool).claim(claimed)
        striping = world.record(world.create("other").volume_id).parameters.striping
        half = NewImage(claimed.image_name, RawSize(SMALL), striping, ("layering",))
        pool.create_image(half)
        with pytest.raises(PendingError):
            world.volumes.create(plan)
        made = until_free(lambda: world.volumes.create(plan))
        assert pool.find_image(claimed.image_name) != made.volume_id.image_id
        assert [each.image_name for each in pending(pool)] == [claimed.image_name]
    world.collect_all()
    assert claimed.image_name not in world.images()
    assert world.names() == ["one", "other"]


class FailingSteps(Steps):
    """Every step of one name fails, as in a cluster in trouble."""

    def __init__(self, name: str, error: DriverError) -> None:
        super().__init__(Fault(0))
        self._name = name
        self._error = error

    def run[**P, R](
        self, name: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        if name == self._name:
            raise self._error
        return super().run(name, call, *args, **kwargs)


@pytest.mark.parametrize(
    "call",
    [
        "pool.create_image",
        "pool.find_image",
        "pool.swap_metadata",
        "image.write_header",
    ],
)
@pytest.mark.parametrize("kind", [ExhaustedError, UnavailableError])
def test_a_create_that_fails_can_be_repeated_and_leaves_nothing(
    world: FakeWorld, call: str, kind: type[DriverError]
) -> None:
    steps = FailingSteps(call, kind("injected"))
    failing = world.controller(FaultyConnector(world.connector, steps))
    with pytest.raises(kind, match="injected"):
        failing.volumes.create(encrypted(world))
    made = world.volumes.create(encrypted(world))
    world.collect_all()
    assert len(world.images()) == 1
    world.volumes.delete(made.volume_id)
    world.collect_all()
    assert world.content() == {}


def test_a_full_pool_is_refused_before_anything_is_written(world: FakeWorld) -> None:
    kept = world.create("kept")
    before = world.content()
    world.store.pool("rbd").full = True
    volumes: Volumes = world.volumes
    with pytest.raises(ExhaustedError, match="full"):
        volumes.create(encrypted(world))
    assert world.content() == before
    world.store.pool("rbd").full = False
    world.store.pool("rbd2").full = True
    with pytest.raises(ExhaustedError, match="rbd2"):
        volumes.create(world.request("one", SMALL, dataPool="rbd2"))
    assert world.content() == before
    world.store.pool("rbd").full = True
    volumes.delete(kept.volume_id)
    world.collect_all()
    assert world.content() == {}


def test_an_unreachable_cluster_changes_nothing_and_recovers(world: FakeWorld) -> None:
    kept = world.create("kept")
    # The shared connection is there already; another controller has none yet.
    other = world.controller()
    before = world.content()
    world.store.clusters["fake"].unreachable = True
    calls: list[Callable[[], object]] = [
        lambda: other.volumes.list("", 0),
        lambda: other.volumes.get(kept.volume_id),
        lambda: world.volumes.delete(kept.volume_id),
        lambda: world.volumes.create(encrypted(world)),
    ]
    for call in calls:
        with pytest.raises(UnavailableError):
            call()
    world.store.clusters["fake"].unreachable = False
    assert world.content() == before
    assert other.volumes.get(kept.volume_id) == kept
    assert len(other.volumes.list("", 0).volumes) == 1


def test_callers_share_one_attempt_to_connect(world: FakeWorld) -> None:
    attempts: list[str] = []
    go_on = threading.Event()

    class Slow:
        def connect(self, cluster: str, user: CephUser | None = None) -> Ceph:
            attempts.append(cluster)
            go_on.wait(10)
            if len(attempts) == 1:
                raise UnavailableError("no answer")
            return world.connector.connect(cluster, user)

    shared = SharedConnections(Slow(), world.clusters)
    outcomes: list[str] = []

    def call() -> None:
        try:
            with shared.pool("fake", "rbd") as pool:
                outcomes.append(pool.pool_name)
        except UnavailableError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    while not attempts:
        time.sleep(0.001)
    time.sleep(0.05)  # so that the others are waiting; late ones would try anew
    go_on.set()
    for thread in threads:
        thread.join()
    assert attempts == ["fake"]
    assert outcomes == ["no answer"] * 5
    call()
    call()
    assert attempts == ["fake", "fake"]
    assert outcomes[5:] == ["rbd", "rbd"]
    shared.close()


def test_a_fenced_shared_connection_is_replaced(world: FakeWorld) -> None:
    world.create("one")
    with world.shared.pool("fake", "rbd") as pool:
        instance = pool._instance  # type: ignore[attr-defined]
    world.store.fence(instance)
    with pytest.raises(FencedError):
        world.volumes.list("", 0)
    assert world.names() == ["one"]
