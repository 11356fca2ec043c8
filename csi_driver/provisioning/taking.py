# SPDX-License-Identifier: Apache-2.0
"""Taking an RBD snapshot whose intent stands in its volume's record.

The order is: intent in the record, RBD snapshot, entry completed from what the
snapshot itself says.  Only then is it usable.  The record tells the filesystem
state before and after the snapshot; unless they are the same nobody knows
which of them the snapshot has, so it is thrown away and another one taken.
"""

from __future__ import annotations

import contextlib
import dataclasses

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.record import Record
from csi_driver.domain.snapshots import MOST_SNAPSHOTS
from csi_driver.domain.snapshots import SNAPSHOT_PREFIX
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.domain.snapshots import new_snapshot_name
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.images.values import ImageSnapshot


def intended(present: Record, name: str) -> Record:
    """Return the record with the intent to take a snapshot; "" is an internal one.

    PendingError while a filesystem is being made: half of one is of no use to
    anybody.  ExhaustedError when there are too many.
    """
    present.require_ready()
    if present.filesystem is FilesystemState.MAKING:
        message = (
            f"the filesystem of volume {present.name!r} is being made: try again"
            " once it is staged"
        )
        raise PendingError(message)
    if len(present.snapshots) >= MOST_SNAPSHOTS:
        message = (
            f"volume {present.name!r} has {len(present.snapshots)} snapshots, the"
            f" most that one volume may have: delete some"
        )
        raise ExhaustedError(message)
    snapshot = Snapshot(
        name=name,
        rbd_name=new_snapshot_name(),
        filesystem=present.filesystem,
        layers=present.layers,
        ancestors=present.ancestors,
    )
    return dataclasses.replace(present, snapshots=(*present.snapshots, snapshot))


def take(pool: Pool, image_id: str, rbd_name: str) -> Snapshot:
    """Take the intended snapshot, or go on where somebody was interrupted.

    ConflictError if it has to be begun anew, with a new intent; NotFoundError if
    the volume was deleted meanwhile.  In both cases nothing of it is left.
    """
    try:
        with pool.open_raw(image_id) as image:
            try:
                return _taken(pool, image, rbd_name)
            except (ConflictError, NotFoundError):
                withdraw(pool, image, rbd_name)
                raise
    except NotFoundError as error:
        message = f"the volume of image {image_id} was deleted meanwhile: {error}"
        raise NotFoundError(message) from error


def find_taken(image: RawImage, snapshot: Snapshot) -> ImageSnapshot | None:
    """Return a snapshot as RBD has it, if it does: somebody may have renamed it.

    One that only lingers for its clones is gone.
    """
    for each in image.snapshots():
        same = each.number == snapshot.number or (
            not snapshot.number and each.name == snapshot.rbd_name
        )
        if same and not each.lingering:
            return each
    return None


def withdraw(pool: Pool, image: RawImage, rbd_name: str) -> None:
    """Take back an intent that was not completed, and what came of it.

    A snapshot that somebody completed after all is left alone, also if it was
    deleted since: it may have clones, and only a deletion knows whether it can go.
    """

    def without(present: Record) -> Record:
        found = _named(present, rbd_name)
        if any(each.state is not SnapshotState.MAKING for each in found):
            return present
        return present.with_snapshot(rbd_name, None).with_needed_keys()

    after = change_record(pool, image.image_id, without)
    if not _named(after, rbd_name):
        with contextlib.suppress(NotFoundError):
            image.remove_snapshot(rbd_name)


def remove_orphans(pool: Pool, image: RawImage) -> None:
    """Remove snapshots of ours that no record names: their maker is gone.

    An intent is always written before its snapshot, so what was listed before
    the record was read and is not in it belongs to nobody.
    """
    listed = [
        each
        for each in image.snapshots()
        if each.name.startswith(SNAPSHOT_PREFIX) and not each.lingering
    ]
    if not listed:
        return
    snapshots = read_record(pool, image.image_id).snapshots
    names = {each.rbd_name for each in snapshots}
    numbers = {each.number for each in snapshots}
    for each in listed:
        if each.name not in names and each.number not in numbers:
            with contextlib.suppress(NotFoundError):
                image.remove_snapshot(each.name)


def _taken(pool: Pool, image: RawImage, rbd_name: str) -> Snapshot:
    _require_open(read_record(pool, image.image_id), rbd_name)
    with contextlib.suppress(AlreadyExistsError):
        image.create_snapshot(rbd_name)
    found = next((s for s in image.snapshots() if s.name == rbd_name), None)
    if found is None:
        message = f"snapshot {rbd_name} was removed while it was being taken"
        raise ConflictError(message)
    flat = _is_flat(pool, image.image_id, found.number)

    def completed(present: Record) -> Record:
        intent = _require_open(present, rbd_name)
        if intent.state is SnapshotState.READY:
            return present
        done = _complete(present, intent, found)
        if flat:  # a flatten ended before the snapshot was taken
            done = dataclasses.replace(done, layers=done.layers[:1], ancestors=0)
        return present.with_snapshot(rbd_name, done).with_needed_keys()

    (snapshot,) = _named(change_record(pool, image.image_id, completed), rbd_name)
    return snapshot


def _complete(present: Record, intent: Snapshot, found: ImageSnapshot) -> Snapshot:
    if present.filesystem is not intent.filesystem:
        message = (
            f"the filesystem of volume {present.name!r} was made while a snapshot"
            " was taken"
        )
        raise ConflictError(message)
    return dataclasses.replace(
        intent,
        state=SnapshotState.READY,
        number=found.number,
        size=present.layout.effective(found.size),
        created=found.created,
    )


def _require_open(present: Record, rbd_name: str) -> Snapshot:
    """Return the entry of a snapshot that may still be completed or used."""
    found = _named(present, rbd_name)
    over = {SnapshotState.DELETING, SnapshotState.KEPT}
    if not found or found[0].state in over:
        message = f"snapshot {rbd_name} of volume {present.name!r} was given up"
        raise ConflictError(message)
    if found[0].state is SnapshotState.MAKING:
        present.require_ready()
    return found[0]


def _is_flat(pool: Pool, image_id: str, number: int) -> bool:
    try:
        with pool.open_raw(image_id, read_only=True, snapshot=number) as image:
            return image.parent() is None
    except NotFoundError as error:
        # Another call completed it, and somebody deleted it at once.
        message = f"snapshot {number} was removed while it was being taken"
        raise ConflictError(message) from error


def _named(present: Record, rbd_name: str) -> list[Snapshot]:
    return [each for each in present.snapshots if each.rbd_name == rbd_name]
