# SPDX-License-Identifier: Apache-2.0
"""Volumes with content, their snapshots and clones, for tests of families.

A content is one block of text at the start, in the middle and at the very end
of a volume, so that a clone that is cut short or shifted shows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import MIB
from csi_driver.provisioning.requests import CreateRequest
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import World
from tests.unit.provisioning.worlds import loaded

SIZE: Final = 8 * MIB
OTHER: Final = {"encryptionKey": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="}
THIRD: Final = {"encryptionKey": "Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2M="}
SOURCE: Final = {"sourceEncryptionKey": SECRET["encryptionKey"]}
"""Says that the source is under SECRET."""

_NONE: Final[Mapping[str, str]] = {}

type Secrets = Mapping[str, str]


def block(text: str) -> bytes:
    """Return one block that begins with the text."""
    return text.encode().ljust(BLOCK_SIZE, b".")


def places(size: int = SIZE) -> tuple[int, int, int]:
    """Return where a content's blocks are."""
    return 0, size // 2, size - BLOCK_SIZE


def fill(
    world: World, volume_id: VolumeId, text: str, secrets: Secrets = SECRET
) -> None:
    """Write a content, as the tenant does."""
    record = world.record(volume_id)
    if not record.mode.encrypted:
        for offset in places():
            world.write_raw(volume_id, offset, block(text))
        return
    with world.pool_of(volume_id) as pool, loaded(pool, record, secrets) as image:
        for offset in places():
            image.write(offset, block(text))


def content_of(
    world: World, volume_id: VolumeId, secrets: Secrets = SECRET, number: int = 0
) -> set[str]:
    """Return what its three blocks say, through its own keys alone; "" for zeros."""
    record = world.record(volume_id)
    if record.mode.encrypted:
        with (
            world.pool_of(volume_id) as pool,
            loaded(pool, record, secrets, read_only=True, snapshot=number) as image,
        ):
            found = [image.read(offset, BLOCK_SIZE) for offset in places()]
    else:
        assert not number
        found = [world.read_raw(volume_id, each, BLOCK_SIZE) for each in places()]
    return {each.strip(b".\0").decode("latin1") for each in found}


def volume(
    world: World,
    name: str = "one",
    text: str = "the source's",
    secrets: Secrets = SECRET,
    parameters: Mapping[str, str] = _NONE,
) -> VolumeId:
    """Create an encrypted volume with a content."""
    request = _with(world.request(name, SIZE, secrets=secrets), parameters)
    made = world.volumes.create(request).volume_id
    fill(world, made, text, secrets)
    return made


def plain_volume(
    world: World,
    name: str = "one",
    text: str = "the source's",
    parameters: Mapping[str, str] = _NONE,
) -> VolumeId:
    """Create a plaintext volume with a content."""
    request = _with(world.plaintext(name, SIZE), parameters)
    made = world.volumes.create(request).volume_id
    fill(world, made, text)
    return made


def clone_request(
    world: World,
    source: VolumeId | SnapshotId,
    name: str = "clone",
    size: int = SIZE,
    secrets: Secrets = SECRET,
) -> CreateRequest:
    """Return a request for a clone; by default it is under its source's Secret."""
    return world.request(name, size, secrets=secrets, source=source)


def clone(
    world: World,
    source: VolumeId | SnapshotId,
    name: str = "clone",
    secrets: Secrets = SECRET,
    parameters: Mapping[str, str] = _NONE,
) -> VolumeId:
    """Make a clone."""
    request = _with(clone_request(world, source, name, secrets=secrets), parameters)
    return world.volumes.create(request).volume_id


def plain_request(
    world: World, source: VolumeId | SnapshotId, name: str = "clone"
) -> CreateRequest:
    """Return a request for a plaintext clone."""
    request = clone_request(world, source, name, secrets={})
    return _with(request, {"encrypted": "false"})


def plain_clone(
    world: World, source: VolumeId | SnapshotId, name: str = "clone"
) -> VolumeId:
    """Make a plaintext clone."""
    return world.volumes.create(plain_request(world, source, name)).volume_id


def flatten(world: World, volume_id: VolumeId, secrets: Secrets = SECRET) -> None:
    """Flatten a clone and note that it is, as a node does."""
    record = world.record(volume_id)
    with world.pool_of(volume_id) as pool, loaded(pool, record, secrets) as image:
        image.acquire_lock()
        image.flatten(lambda _done, _total: True)
    world.change(volume_id, **_flattened(world, volume_id))


def _with(request: CreateRequest, parameters: Mapping[str, str]) -> CreateRequest:
    return dataclasses.replace(request, parameters={**request.parameters, **parameters})


def _flattened(world: World, volume_id: VolumeId) -> dict[str, object]:
    after = world.record(volume_id).flattened()
    return {"layers": after.layers, "ancestors": after.ancestors, "ring": after.ring}


def remove_all(world: World) -> None:
    """Delete all volumes and snapshots; nothing may be left."""
    for each in world.volumes.list_snapshots("", 0).snapshots:
        world.volumes.delete_snapshot(each.snapshot_id)
    for found in world.volumes.list("", 0).volumes:
        world.volumes.delete(found.volume_id)
    world.collect_all()
    assert world.content() == {}
