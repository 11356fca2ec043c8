# SPDX-License-Identifier: Apache-2.0
"""Clones of images that others formatted: no byte missing, their keys in the ring.

librbd formats them itself, LUKS1 with its 4 MiB and LUKS2 with a slow argon2id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import rbd

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.keyring import Purpose
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import MIB
from csi_driver.images.chains import read_chain
from csi_driver.provisioning.adopt import Adoption
from csi_driver.provisioning.adopt import adopt
from tests.ceph.provisioning.real import CephWorld
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.worlds import loaded

PASSPHRASE = "what the others chose"
SIZE = 24 * MIB
KINDS = {
    "luks1": rbd.RBD_ENCRYPTION_FORMAT_LUKS1,
    "luks2": rbd.RBD_ENCRYPTION_FORMAT_LUKS2,
}
BROUGHT = {**OTHER, "sourceEncryptionPassphrase": PASSPHRASE}


def make(world: CephWorld, kind: str) -> tuple[str, bytes]:
    """Make an image as others do, full of random bytes."""
    features = rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
    with world.ioctx() as ioctx:
        rbd.RBD().create(ioctx, kind, SIZE, old_format=False, features=features)
        with rbd.Image(ioctx, kind) as image:
            image.encryption_format(KINDS[kind], PASSPHRASE)
            data = os.urandom(image.size())
            image.write(data, 0)
    return kind, data


@pytest.fixture(scope="module")
def formatted() -> Iterator[tuple[CephWorld, dict[str, bytes]]]:
    """Give one image of each kind with its content."""
    world = CephWorld()
    world.begin()
    with ThreadPoolExecutor() as threads:
        made = dict(threads.map(lambda kind: make(world, kind), KINDS))
    yield world, made
    world.end()


def adopted(world: CephWorld, name: str) -> VolumeId:
    with world.pool() as pool:
        record = adopt(pool, world.config, Adoption(name, ""))
        return VolumeId(pool.location, record.image_id)


def content(world: CephWorld, volume_id: VolumeId, secrets: dict[str, str]) -> bytes:
    with (
        world.pool() as pool,
        loaded(pool, world.record(volume_id), secrets, read_only=True) as image,
    ):
        return image.read(0, image.size().count)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_clones_of_an_adopted_image(
    formatted: tuple[CephWorld, dict[str, bytes]], kind: str
) -> None:
    world, made = formatted
    data = made[kind]
    one = adopted(world, kind)
    record = world.record(one)
    assert record.actual.count == len(data)
    found = world.snapshot(one, f"{kind} snap")
    sources: tuple[VolumeId | SnapshotId, ...] = (one, found)
    refuse_wrong_keys(world, kind, found)
    twin = one
    for number, source in enumerate(sources):
        request = world.request(
            f"{kind} {number}", len(data), secrets=BROUGHT, source=source
        )
        twin = world.volumes.create(request).volume_id
        clone = world.record(twin)
        assert clone.layout == record.layout
        assert clone.ring is not None
        # The foreign passphrase is in the ring: the clone's opener could learn it.
        purposes = [each.purpose for each in clone.ring.entries]
        assert sorted(purposes) == sorted([Purpose.DEK, Purpose.PASSPHRASE])
        with world.pool() as pool:
            own, below = read_chain(pool, twin.image_id)
        assert own.kind is HeaderKind.CLONE_LUKS2
        assert below.kind.value == kind
        assert content(world, twin, OTHER) == data
    # A clone of the clone inherits all of it, under one Secret.
    request = world.request(f"{kind} grandchild", 0, secrets=OTHER, source=twin)
    grandchild = world.volumes.create(request).volume_id
    assert content(world, grandchild, OTHER) == data
    with (
        world.pool() as pool,
        loaded(pool, world.record(grandchild), OTHER) as image,
    ):
        image.write(0, b"x" * BLOCK_SIZE)
        image.acquire_lock()
        image.flatten(lambda _done, _total: True)
        assert image.read(0, len(data)) == b"x" * BLOCK_SIZE + data[BLOCK_SIZE:]


def refuse_wrong_keys(world: CephWorld, kind: str, source: SnapshotId) -> None:
    """Check that wrong and missing passphrases leave nothing."""
    images = world.images()
    wrong: list[dict[str, str]] = [
        {**OTHER, "sourceEncryptionPassphrase": "wrong"},
        {**OTHER, "sourceEncryptionKey": OTHER["encryptionKey"]},
        OTHER,
    ]
    for secrets in wrong:
        request = world.request(f"{kind} wrong", 0, secrets=secrets, source=source)
        with pytest.raises((SecretError, PreconditionError)) as caught:
            world.volumes.create(request)
        assert isinstance(caught.value, DriverError)
        assert PASSPHRASE not in str(caught.value)
    assert world.images() == images
    assert world.record(source.volume).children == ()


def test_adopted_plaintext_gets_room_for_a_header_or_no_encrypted_clone(
    world: CephWorld,
) -> None:
    """An image of others exports all of its bytes: no header fits beside them."""
    data = os.urandom(8 * MIB)
    with world.ioctx() as ioctx:
        rbd.RBD().create(ioctx, "plain", len(data), old_format=False, features=5)
        with rbd.Image(ioctx, "plain") as image:
            image.write(data, 0)
    one = adopted(world, "plain")
    assert world.record(one).layout.reserve == 0
    before = world.content()
    with pytest.raises(PreconditionError, match=r"has 0 bytes.*takes 1048576 at least"):
        world.volumes.create(world.request("clone", 0, source=one))
    assert world.content() == before
    plain = world.request("clone", 0, secrets={}, encrypted="false", source=one)
    twin = world.volumes.create(plain).volume_id
    assert world.read_raw(twin, 0, len(data)) == data


@pytest.mark.timeout(300)
def test_a_chain_of_others_needs_a_passphrase_for_each_layer(
    world: CephWorld,
) -> None:
    """A clone that others formatted over their own: LUKS2 over LUKS1, quickly."""
    make(world, "luks1")
    with world.ioctx() as ioctx:
        with rbd.Image(ioctx, "luks1") as image:
            image.create_snap("theirs")
        rbd.RBD().clone(
            ioctx, "luks1", "theirs", ioctx, "second", features=5, clone_format=2
        )
        with rbd.Image(ioctx, "second") as image:
            image.encryption_format(rbd.RBD_ENCRYPTION_FORMAT_LUKS1, "the second")
        with rbd.Image(ioctx, "second") as image:
            luks = rbd.RBD_ENCRYPTION_FORMAT_LUKS
            image.encryption_load2(((luks, "the second"), (luks, PASSPHRASE)))
            data = bytes(image.read(0, image.size()))
    one = adopted(world, "second")
    key = "sourceEncryptionPassphrase"
    for secrets, match in (
        ({key: "the second"}, f"2 encrypted layers and 1 .*{key}.1 is missing"),
        ({key: "the second", f"{key}.1": "wrong"}, "does not open"),
        ({key: PASSPHRASE, f"{key}.1": "the second"}, "does not open"),
    ):
        request = world.request("clone", 0, secrets={**OTHER, **secrets}, source=one)
        with pytest.raises(SecretError, match=match):
            world.volumes.create(request)
    assert world.names() == ["second"]
    both = {**OTHER, key: "the second", f"{key}.1": PASSPHRASE}
    request = world.request("clone", 0, secrets=both, source=one)
    twin = world.volumes.create(request).volume_id
    assert len(world.record(twin).layers) == 3
    assert content(world, twin, OTHER) == data
