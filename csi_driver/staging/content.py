# SPDX-License-Identifier: Apache-2.0
"""What stands on an attached device: make it, check it, mount it, grow it.

What is right is decided by `domain.filesystem_state`, from the record as it
is after the export has taken the image's lock.  The record says `making`
before mkfs writes its first byte, and names the filesystem only when it is
there, so that an interrupted mkfs is repeated and a finished one never is.
A clone counts as recovered when its journal is replayed and its device filled.
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
    record, step, filesystem = _planned(pool, place)
    if step is Step.HAND_OUT or filesystem is None:
        if not place.read_only:
            change_record(pool, place.image_id, _handed_out)
        return None
    if step is Step.MAKE:
        _make(pool, place, record, filesystem)
    elif not place.read_only:
        _make_whole(place, filesystem)
        if not (record.recovered or _options(place).writable):
            _replay(place, filesystem)
    mount(place, filesystem, _options(place))
    if not (record.recovered or place.read_only):
        mark_recovered(pool, place.image_id)
    return filesystem


def recover(pool: Pool, place: Place) -> None:
    """Bring a clone's filesystem up to date, and leave the device unmounted.

    For a clone that is to be staged read-only, while it is open writable: a
    journal is replayed and the device filled; nothing is made.  Repeating it
    is harmless.
    """
    _, step, filesystem = _planned(pool, place)
    if step is Step.MOUNT and filesystem is not None:
        _make_whole(place, filesystem)
        _replay(place, filesystem)


def mark_recovered(pool: Pool, image_id: str) -> None:
    """Note that a clone's first stage has done what only it has to do."""
    change_record(
        pool, image_id, lambda record: dataclasses.replace(record, recovered=True)
    )


def mount(place: Place, filesystem: Filesystem, options: mounts.MountOptions) -> None:
    """Mount the device at the staging path, and let xfs fill it."""
    mounts.mount_device(place.device, place.staging_path, filesystem.value, options)
    if options.writable:
        grow(place.device, filesystem, place.staging_path)


def grow(device: Path, filesystem: Filesystem, mount_point: Path) -> None:
    """Let a mounted filesystem fill its device."""
    if filesystems.grow_mounted(device, filesystem.value, mount_point):
        _log.info("filesystem grown", device=str(device), filesystem=filesystem.value)


def _planned(pool: Pool, place: Place) -> tuple[Record, Step, Filesystem | None]:
    """Decide what is done, from the record as it is under the lock."""
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
    return record, step, filesystem


def _options(place: Place) -> mounts.MountOptions:
    # A clone has the UUID of its source, whose xfs may be mounted here, too.
    return mounts.MountOptions(
        flags=place.capability.mount_flags,
        read_only=place.read_only,
        no_uuid=True,
    )


def _make_whole(place: Place, filesystem: Filesystem) -> None:
    """Check the unmounted filesystem, and let it fill its device if it can so.

    ext4 grows best while it is not mounted, xfs only once it is.
    """
    filesystems.check(place.device, filesystem.value)
    filesystems.grow_unmounted(place.device, filesystem.value)


def _replay(place: Place, filesystem: Filesystem) -> None:
    """Do what is left for a writable mount, where none follows."""
    if filesystem is Filesystem.XFS:
        mount(place, filesystem, mounts.MountOptions(no_uuid=True))
        mounts.unmount(place.staging_path)


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
    """Remember that a volume's bytes are the tenant's from now on."""
    state = present.filesystem
    if state is FilesystemState.NONE:
        state = FilesystemState.RAW
    return dataclasses.replace(present, filesystem=state, recovered=True)


def _overtaken(present: Record) -> ConflictError:
    return ConflictError(
        f"the filesystem state of volume {present.name!r} became"
        f" {present.filesystem.value!r} while its lock was held here",
    )
