# SPDX-License-Identifier: Apache-2.0
"""Clones for tests of the datapath, made by hand as the volumes are."""

from __future__ import annotations

import base64
import dataclasses
import secrets
import uuid
from collections.abc import Mapping
from collections.abc import Sequence

import rbd

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.flattening import FlattenPolicy
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.ids import new_image_name
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.domain.snapshots import new_snapshot_name
from csi_driver.images.headers import clone_header
from csi_driver.images.headers import make_header
from csi_driver.images.port import RawImage
from csi_driver.images.records import create_record
from csi_driver.images.values import NewClone
from csi_driver.images.values import SnapshotPath
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import empty_ring
from csi_driver.testing.lab_images import load_specs
from tests.ceph.datapath.running import Disk
from tests.ceph.datapath.running import Running
from tests.ceph.datapath.running import Volume

OBJECT = 4 * MIB
BLOCK = Disk.BLOCK
_SHOWN = 512

type Model = dict[int, bytes]


@dataclasses.dataclass(frozen=True)
class Clone:
    """A clone, the volume it reads, and what both hold at which offset."""

    volume: Volume
    parent: Volume
    snapshot: str
    model: Model

    @property
    def flat(self) -> Volume:
        """The volume as it is opened once it reads no parent."""
        return dataclasses.replace(self.volume, below=())

    def kind(self) -> HeaderKind:
        with self._raw() as raw:
            return header_kind(raw.read_header(_SHOWN))

    def first_object(self) -> str:
        """Name the RADOS object that the header stands in."""
        return f"rbd_data.{self.volume.volume_id.image_id}.{0:016x}"

    def has_parent(self) -> bool:
        with self._raw() as raw:
            return raw.parent() is not None

    def require_flat(self) -> None:
        """Look at image, record and bytes, as they are once it is not open."""
        assert not self.has_parent()
        record = self.volume.record()
        assert record.ancestors == 0
        assert record.flatten is None
        if self.volume.mode.encrypted:
            assert self.kind() is HeaderKind.LUKS2
            assert len(record.layers) == 1
            self.require_bytes(self.volume.dek)

    def require_bytes(self, *keys: bytes, snapshot: int = 0) -> None:
        """Read it through a handle of its own, with exactly these keys."""
        pool, image_id = self.volume.pool, self.volume.volume_id.image_id
        specs = load_specs(*keys)
        with pool.open_loaded(
            image_id, specs, read_only=True, snapshot=snapshot
        ) as image:
            for offset, content in self.model.items():
                assert image.read(offset, len(content)) == content, offset

    def take_snapshot(self) -> int:
        """Take a snapshot of the clone, put it into the record; its number."""
        name = new_snapshot_name()
        image_id = self.volume.volume_id.image_id
        with self.volume.pool.open_raw(image_id) as raw:
            raw.create_snapshot(name)
            (taken,) = raw.snapshots()

        def listed(record: Record) -> Record:
            snapshot = Snapshot(
                name="snap",
                rbd_name=name,
                state=SnapshotState.READY,
                number=taken.number,
                layers=record.layers,
                ancestors=record.ancestors,
            )
            return record.with_snapshot(name, snapshot)

        self.volume.change(listed)
        return taken.number

    def remove(self) -> None:
        image_id = self.volume.volume_id.image_id
        with self.volume.pool.open_raw(image_id) as raw:
            owner = raw.lock_owner()
            if owner is not None:
                raw.break_lock(owner)
        with self.volume.pool.open_raw(image_id) as raw:
            for each in raw.snapshots():
                raw.remove_snapshot(each.name)
        self.volume.pool.remove_image(self.volume.name)
        with self.parent.pool.open_raw(self.parent.volume_id.image_id) as raw:
            if any(each.name == self.snapshot for each in raw.snapshots()):
                raw.remove_snapshot(self.snapshot)

    def _raw(self) -> RawImage:
        image_id = self.volume.volume_id.image_id
        return self.volume.pool.open_raw(image_id, read_only=True)


def clone_of(
    parent: Volume,
    policy: FlattenPolicy,
    *,
    mode: EncryptionMode | None = None,
    recovered: bool = True,
    features: Sequence[str] = (),
) -> Clone:
    """Write one block into every object of the parent, and clone it.

    `mode` is the clone's if it is another than the parent's.
    """
    mode = mode or parent.mode
    source = parent.record()
    model = fill(parent, source.actual.count)
    pool, snapshot = parent.pool, new_snapshot_name()
    with pool.open_raw(parent.volume_id.image_id) as raw:
        raw.create_snapshot(snapshot)
        striping = raw.striping()
        covered = raw.read_header(_SHOWN)
    name = new_image_name()
    path = SnapshotPath(pool.pool_name, "", parent.name, snapshot)
    pool.clone_image(path, NewClone(name, striping, (*DEFAULT_FEATURES, *features)))
    image_id = pool.find_image(name)
    assert image_id is not None
    dek = secrets.token_bytes(32)
    below = (parent.dek, *parent.below) if parent.mode.encrypted else ()
    volume = Volume(
        VolumeId(pool.location, image_id),
        name,
        mode,
        dek,
        pool,
        parent.config,
        below,
    )
    record = dataclasses.replace(
        source,
        name=name,
        image_id=image_id,
        mode=mode,
        parameters=dataclasses.replace(
            source.parameters, encrypted=mode.encrypted, flatten_policy=policy
        ),
        ancestors=source.ancestors + 1,
        recovered=recovered,
    )
    if mode is EncryptionMode.KEYRING:
        keys = {str(uuid.uuid4()): key for key in (dek, *below)}
        own = uuid.UUID(next(iter(keys)))
        header = clone_header(make_header(SecretBytes(dek), own, source.layout))
        with pool.open_raw(image_id) as raw:
            raw.write_clone_header(header, covered)
        record = with_ring(record, keys)
    create_record(pool, record)
    return Clone(volume, parent, snapshot, model)


def with_ring(record: Record, keys: Mapping[str, bytes]) -> Record:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    with empty_ring(parse_key_source({"encryptionKey": key})) as ring:
        for header_uuid, dek in keys.items():
            ring.add_dek(header_uuid, SecretBytes(dek))
        return dataclasses.replace(record, ring=ring.ring, layers=tuple(keys))


def fill(parent: Volume, size: int) -> Model:
    model = {at: secrets.token_bytes(BLOCK) for at in range(0, size, OBJECT)}
    if not parent.mode.encrypted:
        with rbd.Image(parent.pool.ioctx, parent.name) as image:
            for offset, content in model.items():
                image.write(content, offset)
        return model
    specs = load_specs(parent.dek, *parent.below)
    with parent.pool.open_loaded(parent.volume_id.image_id, specs) as image:
        for offset, content in model.items():
            image.write(offset, content)
    return model


def require_disk(running: Running, clone: Clone) -> None:
    """Compare what the open volume's device shows."""
    disk = running.disk(clone.volume)
    for offset, content in clone.model.items():
        assert disk.read(offset) == content, offset
