# SPDX-License-Identifier: Apache-2.0
"""Clones made by hand, so that the node is tested against records of any kind."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Mapping

from csi_driver.domain.access import Capability
from csi_driver.domain.context import volume_context
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.lineage import Origin
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.chains import FIRST_BYTES
from csi_driver.images.chains import read_chain
from csi_driver.images.connections import SharedConnections
from csi_driver.images.headers import clone_header
from csi_driver.images.headers import make_header
from csi_driver.images.port import Pool
from csi_driver.images.records import create_record
from csi_driver.images.records import read_record
from csi_driver.images.values import NewClone
from csi_driver.images.values import SnapshotPath
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import empty_ring
from csi_driver.keys.ring import new_dek
from csi_driver.keys.ring import open_ring
from csi_driver.provisioning.requests import VolumeInfo
from tests.ceph.staging.harness import OTHER_SECRETS
from tests.ceph.staging.harness import SECRETS
from tests.ceph.staging.harness import WRITER
from tests.ceph.staging.harness import Node


class Clones:
    """Makes clones of volumes in the pool `rbd`, and removes them."""

    def __init__(self, connections: SharedConnections) -> None:
        self._connections = connections
        self._made: list[tuple[str, str, str]] = []

    def make(
        self,
        source: VolumeInfo,
        *,
        size: int = 0,
        secrets: Mapping[str, str] = OTHER_SECRETS,
        source_secrets: Mapping[str, str] = SECRETS,
        formatted: bool = True,
    ) -> VolumeInfo:
        """Snapshot the source as it is, and clone it under a key of its own.

        A clone that is not formatted has its source's header, if there is one,
        and its source's Secret.
        """
        with self._connections.pool("lab", "rbd") as pool:
            origin = read_record(pool, source.volume_id.image_id)
            image_id = self._clone(pool, origin.image_id)
            record = dataclasses.replace(
                origin,
                name=f"clone-{time.monotonic_ns()}",
                image_id=image_id,
                desired=EffectiveSize(size) if size else origin.actual,
                ancestors=origin.ancestors + 1,
                exports=(),
                origin=Origin(str(source.volume_id)),
                recovered=False,
            )
            if formatted:
                ring, layers = _keys(pool, record, secrets, source_secrets)
                record = dataclasses.replace(
                    record, mode=EncryptionMode.KEYRING, ring=ring, layers=layers
                )
            elif origin.mode.encrypted:
                layers = (*origin.layers[:1], *origin.layers)
                record = dataclasses.replace(record, layers=layers)
            create_record(pool, record)
            volume_id = VolumeId(pool.location, image_id)
        return VolumeInfo(volume_id, record.actual, volume_context(record))

    def remove(self) -> None:
        """Remove all clones, the last one first, and what they were made from."""
        with self._connections.pool("lab", "rbd") as pool:
            for name, snapshot, source_id in reversed(self._made):
                image_id = pool.find_image(name)
                assert image_id is not None
                with pool.open_raw(image_id) as image:
                    owner = image.lock_owner()
                    if owner is not None:
                        image.break_lock(owner)
                pool.remove_image(name)
                with pool.open_raw(source_id) as image:
                    image.remove_snapshot(snapshot)

    def _clone(self, pool: Pool, source_id: str) -> str:
        name = f"clone-{time.monotonic_ns()}"
        snapshot = f"snapshot-{name}"
        with pool.open_raw(source_id) as source:
            source.create_snapshot(snapshot)
            path = SnapshotPath(pool.pool_name, "", source.name, snapshot)
            striping = source.striping()
        pool.clone_image(path, NewClone(name, striping, DEFAULT_FEATURES))
        self._made.append((name, snapshot, source_id))
        image_id = pool.find_image(name)
        assert image_id is not None
        return image_id


def _keys(
    pool: Pool,
    record: Record,
    secrets: Mapping[str, str],
    source_secrets: Mapping[str, str],
) -> tuple[KeyRing, tuple[str, ...]]:
    """Write the clone's header; return its ring, and the layers of its chain."""
    header_uuid = str(uuid.uuid4())
    below = [each.key for each in read_chain(pool, record.image_id)[1:]]
    layers = (header_uuid, *(each for each in below if each is not None))
    dek = new_dek()
    header = clone_header(make_header(dek, uuid.UUID(header_uuid), record.layout))
    with pool.open_raw(record.image_id) as image:
        image.write_clone_header(header, image.read_header(FIRST_BYTES))
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(empty_ring(parse_key_source(secrets)))
        opened.add_dek(header_uuid, dek)
        if record.ring is not None:
            source = parse_key_source(source_secrets)
            other = stack.enter_context(open_ring(record.ring, source))
            opened.add_from(other, sorted(set(layers[1:])))
        return opened.ring, layers


def staged(
    node: Node,
    volume: VolumeInfo,
    capability: Capability = WRITER,
    *,
    secrets: Mapping[str, str] = OTHER_SECRETS,
) -> bytes:
    """Stage a clone, with its own Secret alone; return the source's file."""
    node.stage(volume, capability, secrets)
    return (node.staging / "file").read_bytes()
