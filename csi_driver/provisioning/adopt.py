# SPDX-License-Identifier: Apache-2.0
"""Adopting an image that others made, plaintext or formatted with LUKS.

The image gets a record and a directory entry, nothing else about it changes:
its passphrases stay what they are and go to librbd as they are.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.context import volume_context
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.ids import check_volume_name
from csi_driver.domain.ids import static_volume_name
from csi_driver.domain.luks import VISIBLE_LENGTH
from csi_driver.domain.luks import parse_header
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.parameters import VolumeParameters
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import Layout
from csi_driver.images.chains import read_chain
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import create_record
from csi_driver.images.records import find_record


@dataclasses.dataclass(frozen=True, slots=True)
class Adoption:
    """Which image to adopt; `name` is the volume's, by default the image's."""

    image_name: str
    name: str = ""
    block: bool = False


def adopt(pool: Pool, config: ClusterConfig, asked: Adoption) -> Record:
    """Make a volume of an image that lies in `pool`.

    A repeated call returns the volume it made.  NotFoundError without the
    image; AlreadyExistsError if the name or the image belongs to another
    volume; PreconditionError, HeaderError or SizeError if the image cannot be
    served.
    """
    config.require(pool.pool_name, pool.location.namespace)
    name = check_volume_name(asked.name or asked.image_name)
    image_id = pool.find_image(asked.image_name)
    if image_id is None:
        message = f"pool {pool.pool_name} has no image {asked.image_name!r}"
        raise NotFoundError(message)
    entry = Entry(name, asked.image_name, image_id)
    _require_free(pool, entry)
    record = find_record(pool, image_id)
    if record is None:
        with pool.open_raw(image_id, read_only=True) as image:
            record = _examine(image, pool, config, name, block=asked.block)
        # Before the entry: an image behind a name has a record.
        create_record(pool, record)
    record.require_ready()
    if record.block != asked.block:
        kind = "a raw block volume" if record.block else "a volume with a filesystem"
        message = (
            f"image {asked.image_name!r} was adopted as {kind} already:"
            f" {'give' if record.block else 'leave out'} --block"
        )
        raise AlreadyExistsError(message)
    if record.name != name:
        record = _renamed(pool, record, entry)
    if Directory(pool).find(name) != entry:
        _file(pool, entry)
    return record


def manifest(
    volume_id: VolumeId,
    record: Record,
    driver: str,
    secret: SecretRef | None,
) -> dict[str, Any]:
    """Return a PersistentVolume for an adopted volume, ready for kubectl.

    Its reclaim policy is Retain: the image was not made by Kubernetes.
    """
    csi: dict[str, Any] = {
        "driver": driver,
        "volumeHandle": str(volume_id),
        "volumeAttributes": volume_context(record),
    }
    if secret is not None:
        csi["nodeStageSecretRef"] = {
            "name": secret.name,
            "namespace": secret.namespace,
        }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": static_volume_name(record.image_id)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": str(record.actual.count)},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "volumeMode": "Block" if record.block else "Filesystem",
            "csi": csi,
        },
    }


def _examine(
    image: RawImage,
    pool: Pool,
    config: ClusterConfig,
    name: str,
    *,
    block: bool,
) -> Record:
    """Read what the image is, without a passphrase."""
    features = image.features()
    if "exclusive-lock" not in features:
        message = (
            f"image {name!r} lacks the exclusive-lock feature, which keeps writers"
            f" apart: run `rbd feature enable {pool.pool_name}/{image.name}"
            " exclusive-lock`"
        )
        raise PreconditionError(message)
    if "journaling" in features:
        message = f"image {name!r} is journaled; librbd loads no encryption on it"
        raise PreconditionError(message)
    raw = image.raw_size()
    offset = _data_offset(image)
    mode = EncryptionMode.PASSPHRASE if offset else EncryptionMode.NONE
    size = Layout(offset).effective(raw)
    if not size.count or size.count % BLOCK_SIZE:
        message = (
            f"image {name!r} offers {size}; exports come in whole blocks of"
            f" {BLOCK_SIZE} bytes: grow it to the next multiple"
        )
        raise SizeError(message)
    return Record(
        name=name,
        image_id=image.image_id,
        state=VolumeState.READY,
        mode=mode,
        parameters=VolumeParameters(
            cluster=config.cluster,
            pool=pool.pool_name,
            namespace=pool.location.namespace,
            features=tuple(each for each in DEFAULT_FEATURES if each in features),
            striping=image.striping(),
            encrypted=mode.encrypted,
        ),
        layout=Layout(offset),
        desired=size,
        actual=size,
        block=block,
        filesystem=FilesystemState.RAW if block else FilesystemState.FOREIGN,
        ancestors=len(read_chain(pool, image.image_id)) - 1,
    )


def _data_offset(image: RawImage) -> int:
    """Return the bytes in front of the data: 0 for a plaintext image."""
    visible = min(VISIBLE_LENGTH, image.raw_size().count)
    first = image.read_header(visible) if visible else b""
    try:
        offset = parse_header(first).data_offset
    except HeaderError:
        if _looks_formatted(first):
            raise
        return 0
    striping = image.striping()
    striping.require_encryptable(image.name)
    if not offset or offset % striping.period:
        # Measured on 18.2.7: such a load is EINVAL.  cryptsetup's own default
        # for LUKS1 is 2 MiB, librbd's is one object.
        message = (
            f"the data of image {image.name!r} begins {offset} bytes behind the"
            f" start of its LUKS header; librbd loads multiples of"
            f" {striping.period} only"
        )
        raise HeaderError(message)
    return offset


def _looks_formatted(first: bytes) -> bool:
    return bool(first) and first[:4] in {b"LUKS", b"RBDL"}


def _renamed(pool: Pool, record: Record, entry: Entry) -> Record:
    """Give an adoption that lost its name to another volume the new one."""
    filed = Directory(pool).find(record.name)
    if filed is not None and filed.image_id == record.image_id:
        message = f"image {entry.image_name!r} is the volume {record.name!r} already"
        raise AlreadyExistsError(message)
    return change_record(
        pool,
        record.image_id,
        lambda present: dataclasses.replace(present.require_ready(), name=entry.name),
    )


def _require_free(pool: Pool, entry: Entry) -> None:
    found = Directory(pool).find(entry.name)
    if found is not None and found != entry:
        raise _taken(entry)


def _file(pool: Pool, entry: Entry) -> None:
    try:
        Directory(pool).claim(entry)
    except ConflictError:
        raise _taken(entry) from None


def _taken(entry: Entry) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"the volume name {entry.name!r} is taken; choose another with --name",
    )
