# SPDX-License-Identifier: Apache-2.0
"""What stands on an attached device: make it, check it, mount it, grow it.

What is right is decided by `domain.filesystem_state`, from the record as it
is after the export has taken the image's lock.  The record says `making`
before mkfs writes its first byte, and names the filesystem only when it is
there, so that an interrupted mkfs is repeated and a finished one never is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from csi_driver.devices import filesystems
from csi_driver.devices import mounts
from csi_driver.devices.filesystems import Signature
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.filesystem_state import MADE
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.filesystem_state import Step
from csi_driver.domain.filesystem_state import plan
from csi_driver.domain.record import Record
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record

_BEFORE_MKFS: Final = frozenset({FilesystemState.NONE, FilesystemState.MAKING})
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """An attached volume and where it goes.

    `device` is the block device's path; nothing is mounted at `staging_path`
    for a block volume.
    """

    image_id: str
    device: Path
    staging_path: Path
    capability: Capability
    read_only: bool


def settle(pool: Pool, place: Place) -> Filesystem | None:
    """Bring the device to its use and return the filesystem mounted, if any.

    PreconditionError says what stands on the device that is not expected
    there; nothing was overwritten then.
    """
    record = read_record(pool, place.image_id).require_ready()
    state = record.filesystem
    wanted = place.capability
    if state in _BEFORE_MKFS and wanted.filesystem is None:
        chosen = record.parameters.filesystem
        wanted = dataclasses.replace(wanted, filesystem=chosen)
    try:
        step, filesystem = plan(
            state,
            wanted,
            _signature(place, state),
            read_only=place.read_only,
        )
    except PreconditionError as error:
        message = f"volume {record.name!r}: {error}"
        raise PreconditionError(message) from error
    if step is Step.HAND_OUT or filesystem is None:
        if not place.read_only:
            change_record(pool, place.image_id, _handed_out)
        return None
    if step is Step.MAKE:
        _make(pool, place, record, filesystem)
    elif not place.read_only:
        filesystems.check(place.device, filesystem.value)
        # ext4 grows best while it is not mounted, xfs only once it is.
        filesystems.grow_unmounted(place.device, filesystem.value)
    # An adopted image may be the copy of another that is mounted here, too.
    mount(place, filesystem, may_be_a_copy=state is FilesystemState.FOREIGN)
    return filesystem


def mount(place: Place, filesystem: Filesystem, *, may_be_a_copy: bool) -> None:
    """Mount the device at the staging path, and let xfs fill it."""
    options = mounts.MountOptions(
        flags=place.capability.mount_flags,
        read_only=place.read_only,
        no_uuid=may_be_a_copy,
    )
    mounts.mount_device(place.device, place.staging_path, filesystem.value, options)
    if options.writable:
        grow(place.device, filesystem, place.staging_path)


def grow(device: Path, filesystem: Filesystem, mount_point: Path) -> None:
    """Let a mounted filesystem fill its device."""
    if filesystems.grow_mounted(device, filesystem.value, mount_point):
        _log.info("filesystem grown", device=str(device), filesystem=filesystem.value)


def _signature(place: Place, state: FilesystemState) -> str | None:
    """Look at the device, where its content has a say in what happens.

    A block volume's bytes are the tenant's, and what an interrupted mkfs left
    may look like anything.
    """
    if place.capability.block or state is FilesystemState.MAKING:
        return None
    found = filesystems.probe(place.device)
    return None if found is None else _named(found)


def _named(found: Signature) -> str:
    if found.kind is not None and found.partition_table is None:
        return found.kind
    return found.describe()


def _make(pool: Pool, place: Place, record: Record, filesystem: Filesystem) -> None:
    change_record(pool, place.image_id, _begun)
    _log.info(
        "making a filesystem",
        image=place.image_id,
        filesystem=filesystem.value,
        again=record.filesystem is FilesystemState.MAKING,
    )
    filesystems.make(
        place.device,
        filesystem.value,
        record.parameters.mkfs_options,
        overwrite=record.filesystem is FilesystemState.MAKING,
    )
    change_record(pool, place.image_id, _made(filesystem))


def _begun(present: Record) -> Record:
    if present.filesystem not in _BEFORE_MKFS:
        raise _overtaken(present)
    return dataclasses.replace(present, filesystem=FilesystemState.MAKING)


def _made(filesystem: Filesystem) -> Callable[[Record], Record]:
    def change(present: Record) -> Record:
        if present.filesystem is not FilesystemState.MAKING:
            raise _overtaken(present)
        return dataclasses.replace(present, filesystem=MADE[filesystem])

    return change


def _handed_out(present: Record) -> Record:
    """Remember that a fresh volume's bytes are the tenant's from now on."""
    if present.filesystem is not FilesystemState.NONE:
        return present
    return dataclasses.replace(present, filesystem=FilesystemState.RAW)


def _overtaken(present: Record) -> ConflictError:
    return ConflictError(
        f"the filesystem state of volume {present.name!r} became"
        f" {present.filesystem.value!r} while its lock was held here",
    )
