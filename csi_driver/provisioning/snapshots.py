# SPDX-License-Identifier: Apache-2.0
"""Snapshots of volumes by name: made once, deleted in any order, listed.

The directory files a snapshot's name before anything else happens and frees it
when the rest is gone, so that a repeated call finds its own work.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Final

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.images.directory import Directory
from csi_driver.images.directory import SnapshotEntry
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import find_record
from csi_driver.images.records import read_record
from csi_driver.provisioning import taking

_TRIES: Final = 10
_PAGE: Final = 500


def create_snapshot(pool: Pool, image_id: str, name: str) -> Snapshot:
    """Take a snapshot under a name, or return the one that is there.

    `pool` belongs to a Rados instance of this call's own.  AlreadyExistsError
    if the name belongs to another volume's snapshot; NotFoundError without the
    volume; PendingError if others keep getting in the way.
    """
    for _ in range(_TRIES):
        # Losing a race means that another process came further: look again.
        with contextlib.suppress(ConflictError):
            return _attempt(pool, image_id, name)
    message = f"snapshot {name!r} is being changed by others all the time"
    raise PendingError(message)


def _attempt(pool: Pool, image_id: str, name: str) -> Snapshot:
    directory = Directory(pool)
    entry = directory.find_snapshot(name)
    if entry is not None and entry.image_id != image_id:
        _require_stale(pool, entry)
        directory.forget_snapshot(entry)
        entry = None
    if entry is None:
        read_record(pool, image_id).require_ready()
        entry = SnapshotEntry(name, image_id)
        directory.claim(entry)
    try:
        snapshot = _find_or_take(pool, entry)
    except NotFoundError:
        _free_begun(pool, entry)
        raise
    if not entry.number:
        directory.replace(entry, _complete(entry, snapshot))
    return snapshot


def _find_or_take(pool: Pool, entry: SnapshotEntry) -> Snapshot:
    def wanted(present: Record) -> Record:
        if present.snapshot_named(entry.name) is not None:
            return present
        return present if entry.number else taking.intended(present, entry.name)

    try:
        record = change_record(pool, entry.image_id, wanted)
    except (PendingError, ExhaustedError):
        _free_begun(pool, entry)
        raise
    snapshot = record.snapshot_named(entry.name)
    if snapshot is None:  # the name outlived its snapshot
        Directory(pool).forget_snapshot(entry)
        message = f"snapshot {entry.name!r} was deleted"
        raise ConflictError(message)
    if snapshot.state is SnapshotState.DELETING:
        message = f"snapshot {entry.name!r} is being deleted"
        raise PendingError(message)
    if snapshot.state is SnapshotState.READY:
        return snapshot
    return taking.take(pool, entry.image_id, snapshot.rbd_name)


def delete_snapshot(pool: Pool, snapshot_id: SnapshotId) -> None:
    """Delete a snapshot; one that is gone needs nothing.

    Clones that were made from it go on.  PendingError while one is being made.
    """
    image_id = snapshot_id.volume.image_id

    def doomed(present: Record) -> Record:
        snapshot = present.snapshot_numbered(snapshot_id.number)
        if snapshot is None or snapshot.internal:
            message = f"volume {present.name!r} has no snapshot {snapshot_id.number}"
            raise NotFoundError(message)
        children = present.children_of(snapshot.rbd_name)
        if children:
            message = (
                f"volume {children[0].volume!r} is being cloned from snapshot"
                f" {snapshot.name!r}: delete it once that is done"
            )
            raise PendingError(message)
        return with_state(present, snapshot, SnapshotState.DELETING)

    try:
        record = change_record(pool, image_id, doomed)
        snapshot = record.snapshot_numbered(snapshot_id.number)
        if snapshot is not None:
            finish_deletion(pool, image_id, snapshot)
    except NotFoundError:
        return


def finish_deletion(pool: Pool, image_id: str, snapshot: Snapshot) -> None:
    """Remove a snapshot that is marked for it, then its names; can be repeated.

    One that cannot go yet is kept, without a name.
    """
    with pool.open_raw(image_id) as image:
        gone = _removed(pool, image, snapshot)
        taking.remove_orphans(pool, image)
    if not snapshot.internal:
        _free_name(pool, image_id, snapshot)
    kept = dataclasses.replace(snapshot, name="", state=SnapshotState.KEPT)
    left = None if gone else kept
    change_record(
        pool,
        image_id,
        lambda present: present.with_snapshot(
            snapshot.rbd_name, left
        ).with_needed_keys(),
    )


def _removed(pool: Pool, image: RawImage, snapshot: Snapshot) -> bool:
    """Remove an RBD snapshot, unless its clones would lose what is below it.

    When librbd removes a snapshot with clones, and neither the head nor another
    snapshot reads the same parent any more because of a flatten, it tells the
    parent that its child is gone, though the clones go on reading it.  The parent
    then vanishes from under them (measured on 18.2.7).
    """
    found = taking.find_taken(image, snapshot)
    if found is None:
        return True
    if image.parent() is not None or snapshot.ancestors:
        with pool.open_raw(
            image.image_id, read_only=True, snapshot=found.number
        ) as view:
            link, clones = view.parent(), view.children()
        if link and clones:
            head = image.parent()
            flattening = read_record(pool, image.image_id).flatten is not None
            if flattening or head is None or head.path != link.path:
                return False
    with contextlib.suppress(NotFoundError):
        image.remove_snapshot(found.name)
    return True


def forget_begun(pool: Pool, image_id: str) -> None:
    """Free the names that stand for nothing, of a volume that is gone.

    Whoever filed one died before there was an intent in the volume's record.
    """
    directory = Directory(pool)
    after = ""
    while page := directory.snapshots(after, _PAGE):
        after = page[-1][0]
        for _, entry in page:
            if entry.image_id == image_id:
                _free_begun(pool, entry)


def _free_begun(pool: Pool, entry: SnapshotEntry) -> None:
    """Free a name whose snapshot was never completed."""
    if not entry.number:
        with contextlib.suppress(ConflictError):
            Directory(pool).forget_snapshot(entry)


def _free_name(pool: Pool, image_id: str, snapshot: Snapshot) -> None:
    """Free a snapshot's name, unless it stands for a later one by now."""
    directory = Directory(pool)
    for _ in range(_TRIES):
        entry = directory.find_snapshot(snapshot.name)
        if entry is None or entry.image_id != image_id:
            return
        if entry.number not in {0, snapshot.number}:
            return
        with contextlib.suppress(ConflictError):  # completed in this moment
            directory.forget_snapshot(entry)
            return


def find_snapshot(pool: Pool, snapshot_id: SnapshotId) -> tuple[Record, Snapshot]:
    """Return a usable snapshot and its volume's record, a tombstone's included.

    NotFoundError without it.
    """
    record = read_record(pool, snapshot_id.volume.image_id)
    snapshot = record.snapshot_numbered(snapshot_id.number)
    usable = (
        snapshot is not None
        and snapshot.state is SnapshotState.READY
        and not snapshot.internal
        and record.state in {VolumeState.READY, VolumeState.DELETED}
    )
    if snapshot is None or not usable:
        message = f"there is no snapshot {snapshot_id}"
        raise NotFoundError(message)
    return record, snapshot


def with_state(present: Record, snapshot: Snapshot, state: SnapshotState) -> Record:
    """Return the record with the snapshot in another state."""
    kept = tuple(
        _in_state(each, state) if each.rbd_name == snapshot.rbd_name else each
        for each in present.snapshots
    )
    return dataclasses.replace(present, snapshots=kept)


def _in_state(snapshot: Snapshot, state: SnapshotState) -> Snapshot:
    return dataclasses.replace(snapshot, state=state)


def _complete(entry: SnapshotEntry, snapshot: Snapshot) -> SnapshotEntry:
    return dataclasses.replace(
        entry,
        number=snapshot.number,
        size=snapshot.size.count,
        created=snapshot.created,
    )


def _require_stale(pool: Pool, entry: SnapshotEntry) -> None:
    """Raise unless the name's snapshot is no more (AlreadyExistsError)."""
    with contextlib.suppress(NotFoundError):
        record = find_record(pool, entry.image_id)
        if record is None:
            return
        # An intent is written right behind its name, so a name without one
        # counts as long as its volume can still have snapshots.
        begun = record.state is VolumeState.READY
        if begun or record.snapshot_named(entry.name) is not None:
            message = (
                f"snapshot {entry.name!r} exists already, of volume"
                f" {record.name!r} on image {entry.image_id}"
            )
            raise AlreadyExistsError(message)
