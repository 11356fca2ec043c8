# SPDX-License-Identifier: Apache-2.0
"""One writer: the EXCLUSIVE lock, watchers, and fencing the dead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.port import Ceph
from csi_driver.images.port import Pool
from csi_driver.images.values import LockOwner
from csi_driver.images.values import NewClone
from csi_driver.images.values import NewImage
from tests.contract.images.worlds import POOL
from tests.contract.images.worlds import Clients
from tests.contract.images.worlds import make_snapshot
from tests.contract.images.worlds import path_of


def test_the_lock_has_one_owner_whom_all_see(
    ceph: Ceph,
    pool: Pool,
    peer_pool: Pool,
    flat: str,
) -> None:
    with pool.open_raw(flat) as mine, peer_pool.open_raw(flat) as other:
        assert mine.lock_owner() is None
        mine.acquire_lock()
        mine.acquire_lock()
        for handle in (mine, other):
            owner = handle.lock_owner()
            assert owner is not None
            assert owner.address == ceph.address
        with pytest.raises(InUseError):
            other.acquire_lock()
    with peer_pool.open_raw(flat) as other:
        assert other.lock_owner() is None
        other.acquire_lock()


def test_two_handles_of_one_client_are_two_owners(pool: Pool, flat: str) -> None:
    with pool.open_raw(flat) as first, pool.open_raw(flat) as second:
        first.acquire_lock()
        with pytest.raises(InUseError):
            second.acquire_lock()
        with pytest.raises(InUseError):
            second.erase_header(4096)


def test_under_exclusive_nobody_else_writes(
    pool: Pool,
    peer_pool: Pool,
    flat: str,
    specs: LoadSpecs,
) -> None:
    with (
        pool.open_loaded(flat, specs) as mine,
        peer_pool.open_raw(flat) as raw,
        peer_pool.open_loaded(flat, specs) as loaded,
    ):
        mine.acquire_lock()
        mine.write(0, b"mine")
        with pytest.raises(InUseError):
            raw.erase_header(4096)
        with pytest.raises(InUseError):
            loaded.write(0, b"theirs")
        assert loaded.read(0, 4) == b"mine"
        mine.write(0, b"still")
        peer_pool.swap_metadata(flat, "note", None, "a record may change meanwhile")


def test_the_automatic_lock_follows_the_writer(
    clients: Clients,
    flat: str,
    specs: LoadSpecs,
) -> None:
    ceph, peer = clients.ceph, clients.peer
    pool, peer_pool = clients.pool, clients.peer_pool
    with (
        pool.open_loaded(flat, specs) as mine,
        peer_pool.open_loaded(flat, specs) as other,
    ):
        mine.write(0, b"one")
        assert _owner(mine.lock_owner()) == ceph.address
        other.write(0, b"two")
        assert _owner(mine.lock_owner()) == peer.address
        mine.acquire_lock()  # an automatic owner gives way
        assert _owner(other.lock_owner()) == ceph.address
        with pytest.raises(InUseError):
            other.write(0, b"three")
        assert other.read(0, 3) == b"two"


def test_writers_watch_and_readers_do_not(
    clients: Clients,
    flat: str,
    specs: LoadSpecs,
) -> None:
    ceph, peer = clients.ceph, clients.peer
    pool, peer_pool = clients.pool, clients.peer_pool
    with pool.open_raw(flat) as mine:
        assert mine.foreign_watchers() == []
        with pool.open_raw(flat):
            assert mine.foreign_watchers() == []  # the same client
        with (
            peer_pool.open_raw(flat, read_only=True) as reader,
            peer_pool.open_loaded(flat, specs, read_only=True),
        ):
            assert mine.foreign_watchers() == []
            assert [each.address for each in reader.foreign_watchers()] == [
                ceph.address
            ]
        with peer_pool.open_raw(flat), peer_pool.open_loaded(flat, specs):
            seen = mine.foreign_watchers()
            assert [each.address for each in seen] == [peer.address] * 2
            assert len({each.client for each in seen}) == 1
            assert len({each.cookie for each in seen}) == 2
        assert mine.foreign_watchers() == []


def test_a_read_only_handle_knows_no_lock(pool: Pool, flat: str) -> None:
    with pool.open_raw(flat, read_only=True) as reader:
        with pytest.raises(InvalidRequestError):
            reader.acquire_lock()
        with pytest.raises(InvalidRequestError):
            reader.lock_owner()


def test_breaking_needs_the_present_owner(
    pool: Pool,
    peer_pool: Pool,
    flat: str,
) -> None:
    stale = LockOwner("127.0.0.1:0/1", "127.0.0.1:0/1")
    with pool.open_raw(flat) as mine, peer_pool.open_raw(flat) as other:
        with pytest.raises(NotFoundError):
            mine.break_lock(stale)
        other.acquire_lock()
        with pytest.raises(InUseError):
            mine.break_lock(stale)
        other.erase_header(4096)


def test_a_broken_lock_fences_its_whole_client(
    clients: Clients,
    flat: str,
    specs: LoadSpecs,
    new_name: Callable[[], str],
) -> None:
    pool, peer, peer_pool = clients.pool, clients.peer, clients.peer_pool
    with pool.open_raw(flat) as image:
        name = image.name
    number = make_snapshot(pool, name, "kept")
    with peer_pool.open_raw(flat) as raw, peer_pool.open_loaded(flat, specs) as loaded:
        loaded.acquire_lock()
        _fence(pool, flat)
        attempts: list[Callable[[], object]] = [
            raw.lock_owner,
            raw.acquire_lock,
            raw.foreign_watchers,
            lambda: raw.break_lock(LockOwner("127.0.0.1:0/1", "127.0.0.1:0/1")),
            lambda: raw.read_header(8),
            lambda: raw.erase_header(8),
            lambda: loaded.read(0, 1),
            lambda: loaded.write(0, b"late"),
            lambda: loaded.grow(EffectiveSize(64 * MIB)),
            lambda: loaded.shrink(EffectiveSize(MIB)),
            lambda: loaded.flatten(lambda _done, _total: True),
            lambda: raw.create_snapshot("late"),
            lambda: raw.remove_snapshot("kept"),
            lambda: raw.change_setting("rbd_qos_iops_limit", "1"),
            raw.settings,
            raw.children,
            lambda: peer_pool.find_image("any"),
            lambda: peer_pool.open_raw(flat),
            lambda: peer_pool.open_loaded(flat, specs),
            lambda: peer_pool.read_metadata(flat, "k"),
            lambda: peer_pool.swap_metadata(flat, "k", None, "v"),
            lambda: peer_pool.read_entry("contract", "k"),
            lambda: peer_pool.read_entries("contract", prefix=""),
            lambda: peer_pool.swap_entries("contract", expect={}, put={"k": "v"}),
            lambda: peer_pool.remove_image("any"),
            lambda: peer_pool.create_image(
                NewImage(new_name(), RawSize(MIB), Striping(), ("layering",)),
            ),
            lambda: peer.pool(POOL).read_entry("contract", "k"),
            lambda: peer_pool.clone_image(
                path_of(pool, name, "kept"),
                NewClone(new_name(), Striping(), ("layering",)),
            ),
            lambda: peer_pool.open_raw(flat, snapshot=number),
        ]
        for attempt in attempts:
            with pytest.raises(FencedError):
                attempt()


def test_a_fenced_handle_still_answers_from_memory_and_closes(
    pool: Pool,
    peer: Ceph,
    peer_pool: Pool,
    flat: str,
) -> None:
    raw = peer_pool.open_raw(flat)
    raw.acquire_lock()
    name = raw.name
    _fence(pool, flat)
    assert raw.raw_size() == RawSize(64 * MIB)
    assert raw.name == name
    assert raw.striping() == Striping()
    assert "exclusive-lock" in raw.features()
    assert raw.parent() is None
    assert not raw.dependants()
    assert peer_pool.free_bytes() > 0
    raw.close()
    peer.close()


def test_the_successor_has_the_image_to_itself(
    pool: Pool,
    peer_pool: Pool,
    flat: str,
    specs: LoadSpecs,
    connect: Callable[[], Ceph],
) -> None:
    dead = peer_pool.open_loaded(flat, specs)
    dead.acquire_lock()
    dead.write(0, b"acknowledged")
    _fence(pool, flat)
    with pool.open_loaded(flat, specs) as heir:
        assert heir.lock_owner() is None
        assert heir.foreign_watchers() == []
        heir.acquire_lock()
        assert heir.read(0, 12) == b"acknowledged"
        heir.write(0, b"successor")
        name = heir.name
    connect()  # a new instance of the same process is not fenced
    pool.remove_image(name)


def _fence(pool: Pool, image_id: str) -> None:
    with pool.open_raw(image_id) as image:
        owner = image.lock_owner()
        assert owner is not None
        image.break_lock(owner)


def _owner(owner: LockOwner | None) -> str:
    assert owner is not None
    return owner.address
