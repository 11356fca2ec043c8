# SPDX-License-Identifier: Apache-2.0
"""What CreateVolume makes, and what a repeated one answers."""

from __future__ import annotations

import os

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import GIB
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import WRITER
from tests.unit.provisioning.worlds import World
from tests.unit.provisioning.worlds import loaded

BLOCK = Capability(AccessMode.SINGLE_NODE_WRITER, block=True)
OTHER = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="
XFS = Capability(AccessMode.SINGLE_NODE_WRITER, filesystem=Filesystem.XFS)
EXT4 = Capability(AccessMode.SINGLE_NODE_WRITER, filesystem=Filesystem.EXT4)


@pytest.mark.parametrize("secret", [SECRET, {"encryptionPassphrase": "correct horse"}])
def test_an_encrypted_volume_opens_with_its_secret_alone(
    world: World, secret: dict[str, str]
) -> None:
    made = world.volumes.create(world.request("one", secrets=secret))
    record = world.record(made.volume_id)
    assert made.size == EffectiveSize(GIB)
    assert made.context["encryption"] == "keyring"
    assert record.state is VolumeState.READY
    assert record.filesystem is FilesystemState.NONE
    with world.pool() as pool:
        with loaded(pool, record, secret) as image:
            assert image.size() == made.size
            image.write(GIB - BLOCK_SIZE, b"x" * BLOCK_SIZE)
            assert image.read(GIB - BLOCK_SIZE, BLOCK_SIZE) == b"x" * BLOCK_SIZE
        for wrong in ({"encryptionPassphrase": "wrong"}, {"encryptionKey": OTHER}):
            with (
                pytest.raises(SecretError, match=r"the Secret (is not|holds a)"),
                loaded(pool, record, wrong),
            ):
                pass


def test_a_plaintext_volume_keeps_the_reserve_at_its_tail(world: World) -> None:
    made = world.create("plain")
    record = world.record(made.volume_id)
    assert record.mode is EncryptionMode.NONE
    assert record.ring is None
    assert made.context == {"encryption": "none"}
    with world.pool() as pool, pool.open_raw(made.volume_id.image_id) as image:
        assert image.raw_size() == RawSize(GIB + HEADER_ROOM)
        assert image.features() == {
            "layering",
            "exclusive-lock",
            "object-map",
            "fast-diff",
        }


def test_a_repeated_call_returns_the_same_volume(world: World) -> None:
    first = world.volumes.create(world.request("one"))
    before = world.content()
    assert world.volumes.create(world.request("one")) == first
    # Another controller, and a size that the volume also satisfies.
    other = world.controller().volumes
    assert other.create(world.request("one", 1, limit=2 * GIB)) == first
    assert world.content() == before
    assert len(world.images()) == 1


@pytest.mark.parametrize(
    ("difference", "changes"),
    [
        ("size", {"size": GIB + 1}),
        ("size", {"size": 1, "limit": GIB - BLOCK_SIZE}),
        ("encrypted", {"encrypted": "false", "secrets": {}}),
        ("filesystem", {"capability": XFS}),
        ("mkfs_options", {"mkfsOptions": "-E lazy_itable_init=0"}),
        ("striping", {"objectSize": "1048576"}),
        ("features", {"imageFeatures": "layering,exclusive-lock"}),
        ("volume mode", {"capability": BLOCK}),
    ],
)
def test_another_volume_of_the_same_name_is_refused(
    world: World, difference: str, changes: dict[str, str]
) -> None:
    world.volumes.create(world.request("one", capability=EXT4))
    before = world.content()
    request = world.request("one", **{"capability": EXT4, **changes})  # type: ignore[arg-type]
    with pytest.raises(AlreadyExistsError, match=difference):
        world.volumes.create(request)
    assert world.content() == before


@pytest.mark.parametrize(
    ("size", "limit", "capability", "made"),
    [
        (0, 0, BLOCK, GIB),
        (0, 10 * MIB, BLOCK, 10 * MIB),
        (0, 10 * MIB + 1, BLOCK, 10 * MIB),
        (1, 0, BLOCK, BLOCK_SIZE),
        (4097, 0, BLOCK, 2 * BLOCK_SIZE),
        (4097, 8192, BLOCK, 2 * BLOCK_SIZE),
        (4097, 0, WRITER, MIB),
        (1, 0, XFS, 300 * MIB),
        (300 * MIB + 1, 0, XFS, 300 * MIB + BLOCK_SIZE),
        (1 << 50, 0, BLOCK, 1 << 50),
    ],
)
def test_sizes_are_rounded_up_to_blocks_and_reported_so(
    world: World, size: int, limit: int, capability: Capability, made: int
) -> None:
    plain = {"secrets": {}, "encrypted": "false"}
    if size >= 1 << 50:  # an object map of that size is more than librbd makes
        plain["imageFeatures"] = "layering,exclusive-lock"
    request = world.request("one", size, limit=limit, capability=capability, **plain)  # type: ignore[arg-type]
    found = world.volumes.create(request)
    assert found.size == EffectiveSize(made)
    with world.pool() as pool, pool.open_raw(found.volume_id.image_id) as image:
        assert image.raw_size() == RawSize(made + HEADER_ROOM)


@pytest.mark.parametrize(
    ("size", "limit", "capability"),
    [
        (4097, 5000, BLOCK),
        (0, 4095, BLOCK),
        (1, 100 * MIB, XFS),
        (1, MIB - 1, WRITER),
        ((1 << 63) - 1, 0, BLOCK),
        ((1 << 63) - 1, (1 << 63) - 1, BLOCK),
    ],
)
def test_sizes_that_nothing_satisfies_are_out_of_range(
    world: World, size: int, limit: int, capability: Capability
) -> None:
    request = world.request("one", size, limit=limit, capability=capability)
    with pytest.raises(SizeError):
        world.volumes.create(request)
    assert world.content() == {}


def test_a_limit_below_the_size_is_a_malformed_request(world: World) -> None:
    with pytest.raises(InvalidRequestError, match="limit_bytes"):
        world.request("one", 2, limit=1)


@pytest.mark.parametrize(
    ("object_size", "count"),
    [
        (4 * KIB, 1),
        (4 * KIB, 7),
        (64 * KIB, 16),
        (MIB, 3),
        (4 * MIB, 5),
        (32 * MIB, 1),
        (32 * MIB, 9),
    ],
)
def test_an_encrypted_volume_of_any_striping_loads_to_its_last_block(
    world: World, object_size: int, count: int
) -> None:
    size = 5 * MIB + BLOCK_SIZE
    striping = {"objectSize": str(object_size), "stripeCount": str(count)}
    made = world.volumes.create(world.request("striped", size, **striping))  # type: ignore[arg-type]
    record = world.record(made.volume_id)
    assert record.layout.reserve % (object_size * count) == 0
    assert record.layout.reserve >= HEADER_ROOM
    data = os.urandom(BLOCK_SIZE)
    with world.pool() as pool:
        with pool.open_raw(made.volume_id.image_id, read_only=True) as raw:
            assert raw.raw_size() == record.raw_size
            assert raw.striping() == record.parameters.striping
        with loaded(pool, record) as image:
            assert image.size() == EffectiveSize(size)
            for offset in (0, size - BLOCK_SIZE):
                image.write(offset, data)
        with loaded(pool, record, read_only=True) as image:
            for offset in (0, size - BLOCK_SIZE):
                assert image.read(offset, BLOCK_SIZE) == data
    world.volumes.delete(made.volume_id)
    world.collect_all()
    assert world.content() == {}


@pytest.mark.parametrize(
    ("object_size", "unit", "count"),
    [
        (64 * KIB, 4 * KIB, 16),
        (4 * MIB, 64 * KIB, 5),
        (32 * MIB, 4 * KIB, 3),
        (32 * MIB, 16 * MIB, 9),
    ],
)
def test_a_plaintext_volume_may_have_stripes_within_objects(
    world: World, object_size: int, unit: int, count: int
) -> None:
    striping = {
        "objectSize": str(object_size),
        "stripeUnit": str(unit),
        "stripeCount": str(count),
    }
    plain = world.request(
        "striped",
        secrets={},
        encrypted="false",
        **striping,  # type: ignore[arg-type]
    )
    made = world.volumes.create(plain)
    record = world.record(made.volume_id)
    assert record.layout.reserve % (object_size * count) == 0
    with (
        world.pool() as pool,
        pool.open_raw(made.volume_id.image_id, read_only=True) as raw,
    ):
        assert raw.striping() == Striping(object_size, unit, count)
        assert raw.raw_size() == record.raw_size
    with pytest.raises(InvalidRequestError, match="stripeUnit"):
        world.volumes.create(world.request("encrypted", **striping))  # type: ignore[arg-type]


def test_growing_promises_a_size_and_never_less_than_before(world: World) -> None:
    made = world.create("one")
    wanted = world.request("one", 2 * GIB + 1).capacity
    grown = world.volumes.expand(made.volume_id, wanted)
    assert grown.size == EffectiveSize(2 * GIB + BLOCK_SIZE)
    assert grown.node_required
    smaller = world.request("one", GIB).capacity
    assert world.volumes.expand(made.volume_id, smaller).size == grown.size
    limit_alone = world.request("one", 0, limit=4 * GIB).capacity
    assert world.volumes.expand(made.volume_id, limit_alone).size == grown.size
    with pytest.raises(SizeError, match="limit"):
        world.volumes.expand(made.volume_id, world.request("x", 1, limit=GIB).capacity)
    record = world.record(made.volume_id)
    assert (record.desired, record.actual) == (grown.size, EffectiveSize(GIB))
