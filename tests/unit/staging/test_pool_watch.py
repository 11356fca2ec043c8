# SPDX-License-Identifier: Apache-2.0
"""A full pool is told to those whose writes wait for it, once, and its end, too."""

from __future__ import annotations

import pytest

from csi_driver.datapath.messages import ExportStatus
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Pod
from csi_driver.images.connections import SharedConnections
from csi_driver.staging.pool_watch import PoolWatch
from csi_driver.testing.ceph_fake_pools import FakePool
from csi_driver.testing.ceph_fake_store import FakeStore
from tests.unit.staging.conftest import CreateVolume
from tests.unit.staging.exports import Heard
from tests.unit.staging.exports import export

KEY = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
POD = Pod("tenant", "web-0", "1")


def waiting(
    volume_id: VolumeId, *, reads: int = 0, read_only: bool = False
) -> ExportStatus:
    """Return a volume with two requests under way and five writes done."""
    return export(volume_id, writes=5, in_flight=2, reads=reads, read_only=read_only)


class World:
    """Two volumes on one pool; the second one's data lie on another pool."""

    def __init__(
        self,
        store: FakeStore,
        connections: SharedConnections,
        create: CreateVolume,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.store = store
        self.one = create("one", secrets=KEY).volume_id
        self.two = create("two", secrets=KEY, parameters={"dataPool": "rbd2"}).volume_id
        self.heard = Heard()
        self.watch = PoolWatch(connections, self.heard, lambda: {self.one: (POD,)})
        self.asked: list[str] = []
        real = FakePool.is_full

        def is_full(pool: FakePool) -> bool:
            self.asked.append(pool.pool_name)
            return real(pool)

        monkeypatch.setattr(FakePool, "is_full", is_full)

    def fill(self, name: str, full: bool) -> None:
        self.store.pool(name).full = full

    def look(self, *exports: ExportStatus) -> list[tuple[str, object]]:
        assert not self.watch.look(exports), "nothing of it is urgent"
        return self.heard.take()


@pytest.fixture
def world(
    store: FakeStore,
    connections: SharedConnections,
    create: CreateVolume,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    return World(store, connections, create, monkeypatch)


def test_waiting_writes_on_a_full_pool_are_told_once(world: World) -> None:
    world.fill("rbd", full=True)
    stuck = waiting(world.one)
    assert world.look(stuck) == []
    world.watch.look([stuck])
    message = world.heard.notices[0].message
    assert message.startswith("pool 'rbd' of cluster 'fake' is full")
    assert world.heard.take() == [("PoolFull", world.one), ("PoolFull", POD)]
    assert world.look(stuck) == []
    world.fill("rbd", full=False)
    assert world.look(export(world.one, writes=6)) == [
        ("PoolHasRoom", world.one),
        ("PoolHasRoom", POD),
    ]
    assert world.look(export(world.one, writes=6)) == []


def test_the_pool_of_the_data_counts_too(world: World) -> None:
    world.fill("rbd2", full=True)
    stuck = waiting(world.one), waiting(world.two)
    world.look(*stuck)
    assert world.look(*stuck) == [("PoolFull", world.two)]


def test_nobody_is_asked_while_io_goes_on(world: World) -> None:
    world.fill("rbd", full=True)
    for number in range(5):
        assert world.look(export(world.one, writes=number, in_flight=9)) == []
        assert world.look(export(world.one, writes=number)) == []
    assert world.asked == []


def test_reads_that_go_on_do_not_hide_waiting_writes(world: World) -> None:
    world.fill("rbd", full=True)
    told = [world.look(waiting(world.one, reads=n)) for n in range(3)]
    assert [bool(each) for each in told] == [False, True, False]


def test_io_that_stands_still_on_a_pool_with_room_is_no_news(world: World) -> None:
    for _ in range(4):
        assert world.look(waiting(world.one)) == []
    assert world.asked == ["rbd"] * 3


def test_a_pool_is_asked_about_once_in_a_look(world: World) -> None:
    stuck = waiting(world.one), waiting(world.two)
    world.look(*stuck)
    world.look(*stuck)
    assert sorted(world.asked) == ["rbd", "rbd2"]


def test_readers_and_busy_workers_wait_for_no_room(world: World) -> None:
    world.fill("rbd", full=True)
    for _ in range(3):
        assert world.look(waiting(world.one, read_only=True)) == []
        assert world.look(export(world.one, busy=True)) == []
    assert world.asked == []


def test_a_volume_that_cannot_be_read_hides_no_other(world: World) -> None:
    world.fill("rbd", full=True)
    gone = waiting(VolumeId(Location("fake", 99), "ff"))
    stuck = waiting(world.one)
    world.look(gone, stuck)
    assert world.look(gone, stuck)[0] == ("PoolFull", world.one)


def test_a_volume_that_was_closed_is_forgotten(world: World) -> None:
    world.fill("rbd", full=True)
    stuck = waiting(world.one)
    world.look(stuck)
    world.look(stuck)
    world.look()
    assert world.look(stuck) == []
    assert world.look(stuck)[0] == ("PoolFull", world.one)
