# SPDX-License-Identifier: Apache-2.0
"""Clones: what they show, what they cost, and that they need nobody's Secret."""

from __future__ import annotations

import dataclasses
import os

import pytest

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.limits import BANDWIDTH_SETTING
from csi_driver.domain.limits import IOPS_SETTING
from csi_driver.domain.limits import IoLimits
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.chains import read_chain
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import THIRD
from tests.unit.provisioning.family import block
from tests.unit.provisioning.family import clone
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import fill
from tests.unit.provisioning.family import flatten
from tests.unit.provisioning.family import plain_clone
from tests.unit.provisioning.family import plain_request
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import World
from tests.unit.provisioning.worlds import loaded

UNDER_OTHER = {**OTHER, **SOURCE}
KINDS = ["volume", "snapshot"]


def source_of(world: World, kind: str, one: VolumeId) -> VolumeId | SnapshotId:
    """Return the volume or a snapshot of it."""
    return one if kind == "volume" else world.snapshot(one, "snap")


def settings_of(world: World, volume_id: VolumeId) -> dict[str, str]:
    """Return librbd's settings that an image carries."""
    with (
        world.pool_of(volume_id) as pool,
        pool.open_raw(volume_id.image_id, read_only=True) as image,
    ):
        return image.settings()


@pytest.mark.parametrize("kind", KINDS)
def test_a_clone_is_a_volume_under_its_own_key(world: World, kind: str) -> None:
    one = volume(world)
    source = source_of(world, kind, one)
    request = clone_request(world, source, secrets=UNDER_OTHER)
    made = world.volumes.create(request)
    twin = made.volume_id
    assert made.source == source
    assert made.size == EffectiveSize(SIZE)
    record = world.record(twin)
    assert record.state is VolumeState.READY
    assert record.mode is EncryptionMode.KEYRING
    assert record.layout == world.record(one).layout
    assert (record.ancestors, len(record.layers)) == (1, 2)
    assert record.layers[1:] == world.record(one).layers
    # Nothing was ever written to the source, so nothing has to be recovered.
    assert record.recovered
    # Its own Secret alone opens it, the source's does not.
    assert content_of(world, twin, OTHER) == {"the source's"}
    with pytest.raises(SecretError):
        content_of(world, twin, SECRET)
    with world.pool_of(twin) as pool:
        first, second = read_chain(pool, twin.image_id)
        assert (first.kind, second.kind) == (HeaderKind.CLONE_LUKS2, HeaderKind.LUKS2)
        with pool.open_raw(twin.image_id, read_only=True) as image:
            link = image.parent()
            assert link is not None
            assert link.overlap == record.raw_size
    # Both are written apart, and nothing of the parent was copied.
    assert world.allocated(twin) <= 4 * MIB
    fill(world, twin, "the twin's", OTHER)
    fill(world, one, "later")
    assert content_of(world, twin, OTHER) == {"the twin's"}
    assert content_of(world, one) == {"later"}
    assert world.record(one).children == ()
    remove_all(world)


def test_a_clone_shows_the_snapshot_and_not_the_head(world: World) -> None:
    one = volume(world)
    world.change(one, filesystem=FilesystemState.EXT4)
    found = world.snapshot(one, "snap")
    fill(world, one, "later")
    old, new = clone(world, found, "old"), clone(world, one, "new")
    assert content_of(world, old) == {"the source's"}
    assert content_of(world, new) == {"later"}
    for each in (old, new):
        record = world.record(each)
        assert record.filesystem is FilesystemState.EXT4
        assert not record.recovered
    remove_all(world)


@pytest.mark.parametrize("encrypted", [True, False])
def test_an_equal_clone_reads_its_parent_to_the_last_byte(
    world: World, *, encrypted: bool
) -> None:
    size = 5 * MIB + BLOCK_SIZE
    data = os.urandom(size)
    if encrypted:
        one = world.volumes.create(world.request("one", size)).volume_id
        with world.pool() as pool, loaded(pool, world.record(one)) as image:
            image.write(0, data)
    else:
        one = world.volumes.create(world.plaintext("one", size)).volume_id
        world.write_raw(one, 0, data)
    request = world.request("clone", size, secrets=OTHER | SOURCE, source=one)
    twin = world.volumes.create(request)
    assert twin.size == EffectiveSize(size)
    with (
        world.pool() as pool,
        loaded(pool, world.record(twin.volume_id), OTHER) as image,
    ):
        assert image.size() == twin.size
        assert image.read(0, size) == data
        image.acquire_lock()
        image.flatten(lambda _done, _total: True)
        assert image.read(0, size) == data
    remove_all(world)


@pytest.mark.parametrize("kind", KINDS)
def test_plaintext_clones_of_plaintext(world: World, kind: str) -> None:
    one = plain_volume(world)
    source = source_of(world, kind, one)
    twin = plain_clone(world, source)
    record = world.record(twin)
    assert record.mode is EncryptionMode.NONE
    assert (record.ring, record.layers, record.ancestors) == (None, (), 1)
    assert content_of(world, twin) == {"the source's"}
    assert world.allocated(twin) == 0
    fill(world, twin, "the twin's")
    assert content_of(world, one) == {"the source's"}
    remove_all(world)


@pytest.mark.parametrize("kind", KINDS)
def test_encrypted_clones_of_plaintext(world: World, kind: str) -> None:
    one = plain_volume(world)
    source = source_of(world, kind, one)
    twin = clone(world, source, secrets=THIRD)
    record = world.record(twin)
    assert (len(record.layers), record.ancestors) == (1, 1)
    assert content_of(world, twin, THIRD) == {"the source's"}
    assert world.allocated(twin) <= 4 * MIB
    with world.pool() as pool, pool.open_raw(twin.image_id, read_only=True) as image:
        assert header_kind(image.read_header(8)) is HeaderKind.CLONE_LUKS2
    grandchild = clone(world, twin, "grandchild", THIRD)
    assert world.record(grandchild).ancestors == 2
    assert content_of(world, grandchild, THIRD) == {"the source's"}
    for each in (twin, grandchild):
        flatten(world, each, THIRD)
        assert content_of(world, each, THIRD) == {"the source's"}
    remove_all(world)


def test_bigger_clones_promise_what_was_asked(world: World) -> None:
    one = volume(world)
    request = clone_request(world, one, size=2 * SIZE)
    made = world.volumes.create(request)
    assert made.size == EffectiveSize(2 * SIZE)
    record = world.record(made.volume_id)
    # It grows where it is staged; until then it is as big as its source.
    assert record.desired == made.size
    assert record.actual == EffectiveSize(SIZE)
    assert content_of(world, made.volume_id) == {"the source's"}
    assert world.volumes.create(request) == made
    # Without a size it gets its source's; with a limit too.
    for number, limit in enumerate((0, 3 * SIZE)):
        request = world.request(f"{number}", 0, limit=limit, source=one)
        assert world.volumes.create(request).size == EffectiveSize(SIZE)
    # The source's own pending growth is not the clone's business.
    world.volumes.expand(one, request_capacity(world, 4 * SIZE))
    assert world.volumes.create(
        clone_request(world, one, "small")
    ).size == EffectiveSize(SIZE)
    remove_all(world)


def request_capacity(world: World, size: int) -> CapacityRange:
    """Return a capacity."""
    return world.request("x", size).capacity


def test_clones_in_other_places(wide_world: World) -> None:
    world = wide_world
    one = volume(world)
    found = world.snapshot(one, "snap")
    twins = []
    for number, place in enumerate(world.elsewhere()):
        for source in (one, found):
            name = f"{number} {source}"[:40]
            twin = clone(world, source, name, UNDER_OTHER, place)
            assert twin.location != one.location
            assert content_of(world, twin, OTHER) == {"the source's"}
            twins.append(twin)
    back = clone(world, twins[-1], "back", OTHER)
    assert back.location == one.location
    assert content_of(world, back, OTHER) == {"the source's"}
    world.volumes.delete(one)
    world.volumes.delete_snapshot(found)
    for twin in twins:
        world.volumes.delete(twin)
    world.collect()
    assert content_of(world, back, OTHER) == {"the source's"}
    remove_all(world)


def test_a_clone_may_use_a_data_pool_and_features_of_its_own(
    wide_world: World,
) -> None:
    world = wide_world
    one = volume(world)
    data_pool = world.elsewhere()[1]["pool"]
    twin = clone(
        world,
        one,
        "clone",
        SECRET,
        {"dataPool": data_pool, "imageFeatures": "layering,exclusive-lock"},
    )
    assert content_of(world, twin) == {"the source's"}
    with world.pool() as pool, pool.open_raw(twin.image_id, read_only=True) as image:
        assert "object-map" not in image.features()
        assert "data-pool" in image.features()
    remove_all(world)


def test_clones_of_clones_of_clones(world: World) -> None:
    ids = [volume(world, "0", "generation 0")]
    secrets = [SECRET, OTHER, THIRD, SECRET]
    for number in range(1, 4):
        brought = secrets[number] | {
            key.replace("encryption", "sourceEncryption"): value
            for key, value in secrets[number - 1].items()
        }
        twin = clone(world, ids[-1], str(number), brought)
        assert content_of(world, twin, secrets[number]) == {f"generation {number - 1}"}
        fill(world, twin, f"generation {number}", secrets[number])
        assert world.record(twin).ancestors == number
        ring = world.record(twin).ring
        assert ring is not None
        assert len(ring.entries) == number + 1
        ids.append(twin)
    # Only what is not overwritten is read from below, at whatever depth.
    middle = clone(world, ids[3], "last", SECRET)
    for each in ids:
        world.volumes.delete(each)
    world.collect()
    assert content_of(world, middle) == {"generation 3"}
    assert world.names() == ["last"]
    flatten(world, middle)
    world.collect_all()
    assert len(world.images()) == 1
    assert content_of(world, middle) == {"generation 3"}
    remove_all(world)


@pytest.mark.parametrize("kind", KINDS)
def test_a_repeated_call_returns_the_same_clone(world: World, kind: str) -> None:
    one = volume(world)
    source = source_of(world, kind, one)
    request = clone_request(world, source, secrets=UNDER_OTHER)
    first = world.volumes.create(request)
    before = world.content()
    assert world.volumes.create(request) == first
    assert world.controller().volumes.create(request) == first
    assert world.content() == before
    # Also when the source is gone, and when it cannot be opened any more.
    if isinstance(source, SnapshotId):
        world.volumes.delete_snapshot(source)
    world.volumes.delete(one)
    world.collect()
    request = dataclasses.replace(request, secrets=OTHER)
    assert world.volumes.create(request) == first
    assert content_of(world, first.volume_id, OTHER) == {"the source's"}
    remove_all(world)


def test_a_name_stands_for_one_source(world: World) -> None:
    one, two = plain_volume(world, "one"), plain_volume(world, "two")
    found = world.snapshot(one, "snap")
    plain_clone(world, one)
    before = world.content()
    for other in (two, found):
        with pytest.raises(AlreadyExistsError, match="volume content source"):
            plain_clone(world, other)
    with pytest.raises(AlreadyExistsError, match="volume content source"):
        world.volumes.create(world.plaintext("clone", SIZE))
    with pytest.raises(AlreadyExistsError, match="volume content source"):
        plain_clone(world, two, "one")
    bigger = dataclasses.replace(
        plain_request(world, one), capacity=request_capacity(world, 2 * SIZE)
    )
    with pytest.raises(AlreadyExistsError, match="size"):
        world.volumes.create(bigger)
    assert world.content() == before
    remove_all(world)


def test_a_clone_has_only_the_limits_that_were_asked_for_it(world: World) -> None:
    one = volume(world)
    world.volumes.modify(one, {"iops": "100", "bandwidth": "1Mi"})
    with world.pool() as pool, pool.open_raw(one.image_id) as image:
        image.change_setting("rbd_qos_write_iops_limit", "7")
    found = world.snapshot(one, "snap")
    unlimited = clone(world, found, "unlimited")
    assert settings_of(world, unlimited) == {}
    assert world.record(unlimited).limits == IoLimits()
    request = dataclasses.replace(
        clone_request(world, one, "limited"), mutable={"iops": "50"}
    )
    limited = world.volumes.create(request).volume_id
    assert settings_of(world, limited) == {IOPS_SETTING: "50"}
    assert world.record(limited).limits == IoLimits(50)
    plain = plain_volume(world, "plain")
    world.volumes.modify(plain, {"bandwidth": "1Mi"})
    assert settings_of(world, plain_clone(world, plain, "plain clone")) == {}
    assert settings_of(world, one)[BANDWIDTH_SETTING] == str(MIB)
    remove_all(world)


def test_a_clone_has_its_sources_striping_whatever_its_class_says(
    world: World,
) -> None:
    one = volume(world, parameters={"objectSize": str(MIB), "stripeCount": "3"})
    made = world.volumes.create(clone_request(world, one))
    record = world.record(made.volume_id)
    assert record.parameters.striping == world.record(one).parameters.striping
    assert content_of(world, made.volume_id) == {"the source's"}
    assert world.volumes.create(clone_request(world, one)) == made
    flatten(world, made.volume_id)
    assert content_of(world, made.volume_id) == {"the source's"}
    remove_all(world)


def test_a_block_of_the_parent_can_be_written_in_part(world: World) -> None:
    one = volume(world)
    twin = clone(world, one, secrets=UNDER_OTHER)
    with world.pool() as pool, loaded(pool, world.record(twin), OTHER) as image:
        image.write(512, b"new")
        whole = bytearray(block("the source's"))
        whole[512:515] = b"new"
        assert image.read(0, BLOCK_SIZE) == bytes(whole)
    remove_all(world)
