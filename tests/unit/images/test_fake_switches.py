# SPDX-License-Identifier: Apache-2.0
"""What of the fake no contract can show: full and vanished pools, killed clients."""

from __future__ import annotations

import os
import uuid

import pytest

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.headers import make_header
from csi_driver.images.port import Pool
from csi_driver.images.values import NewImage
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_store import FakeStore

IMAGE = NewImage("i", RawSize(64 * MIB), Striping(), ("layering", "exclusive-lock"))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def pool(store: FakeStore) -> Pool:
    pool = FakeConnector(store).connect("fake").pool("rbd")
    pool.create_image(IMAGE)
    return pool


def test_a_full_pool_takes_nothing_more(store: FakeStore, pool: Pool) -> None:
    store.pool("rbd").full = True
    assert pool.free_bytes() == 0
    with pytest.raises(ExhaustedError):
        pool.create_image(NewImage("j", RawSize(MIB), Striping(), ("layering",)))
    image_id = pool.find_image("i")
    assert image_id is not None
    with pool.open_raw(image_id) as image, pytest.raises(ExhaustedError):
        image.erase_header(4096)
    pool.remove_image("i")  # removing makes room


def test_room_shrinks_by_what_is_written(store: FakeStore, pool: Pool) -> None:
    before = pool.free_bytes()
    image_id = pool.find_image("i")
    assert image_id is not None
    with pool.open_raw(image_id) as image:
        image.erase_header(MIB)
    assert pool.free_bytes() == before - MIB


def test_a_pool_that_vanishes_is_not_found(store: FakeStore, pool: Pool) -> None:
    del store.clusters["fake"].pools[pool.location.pool_id]
    with pytest.raises(NotFoundError):
        pool.find_image("i")


def test_a_killed_client_keeps_lock_and_watch_until_it_is_fenced(
    store: FakeStore,
    pool: Pool,
) -> None:
    image_id = pool.find_image("i")
    assert image_id is not None
    dead = FakeConnector(store).connect("fake")
    dead.pool("rbd").open_raw(image_id).acquire_lock()  # and never heard of again
    with pytest.raises(InUseError):
        pool.remove_image("i")
    with pool.open_raw(image_id) as image:
        owner = image.lock_owner()
        assert owner is not None
        assert owner.address == dead.address
        assert [each.address for each in image.foreign_watchers()] == [dead.address]
        image.break_lock(owner)
    pool.remove_image("i")


def test_the_store_holds_ciphertext(store: FakeStore, pool: Pool) -> None:
    image_id = pool.find_image("i")
    assert image_id is not None
    dek = SecretBytes(os.urandom(32))
    with pool.open_raw(image_id) as raw:
        raw.write_header(make_header(dek, uuid.uuid4(), Layout(16 * MIB)))
    with pool.open_loaded(image_id, LoadSpecs((LayerSpec(dek),))) as image:
        image.write(0, b"canary" * 1000)
    stored = store.pool("rbd").namespaces[""].images[image_id]
    assert stored.data.read(16 * MIB, 6000) != bytes(6000)
    assert b"canary" not in stored.data.read(0, 32 * MIB)
    assert stored.data.objects == 2  # one of the header, one of the data
