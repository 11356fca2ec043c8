# SPDX-License-Identifier: Apache-2.0
"""Removing tombstones once nothing depends on them.

Every step can be repeated: the record goes to `collecting` first, so that
nothing can begin to depend on the image any more; then header and key ring
are destroyed, then the image, then its entry in the directory.

Two collectors keep off each other's images.  librbd does not: whoever takes
the lock of an image that another client is removing finds its object map gone,
notes that in the image's header, and with it brings the removed header object
back for ever (seen on 18.2.7).  So a collector that has an image open alone
reads the record only then, and leaves one that is `collecting` already to the
process that made it so, unless that must be dead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from typing import Final

from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.lineage import Origin
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.headers import SPARSE_LENGTH
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import find_record
from csi_driver.images.records import read_record
from csi_driver.provisioning import children
from csi_driver.provisioning import taking
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.snapshots import forget_begun

_PAGE: Final = 500


class Outcome(enum.Enum):
    """What became of one tombstone."""

    REMOVED = "removed"
    KEPT = "kept: snapshots or clones depend on it"
    BUSY = "kept: somebody has it open or is collecting it"


@dataclasses.dataclass(frozen=True, slots=True)
class Collected:
    """One tombstone and what became of it."""

    entry: Entry
    outcome: Outcome


def pending(pool: Pool) -> list[Entry]:
    """Return all tombstones of a pool and namespace."""
    directory = Directory(pool)
    found: list[Entry] = []
    after = ""
    while page := directory.deleted(after, _PAGE):
        found.extend(entry for _, entry in page)
        after = page[-1][0]
    return found


def collect(
    pool: Pool,
    entry: Entry,
    patience: LockPatience | None = None,
) -> Collected:
    """Remove one tombstone if nothing needs it.

    `pool` belongs to a Rados instance of the collector's own; `patience` is
    kept from one look to the next.  RecordError if
    the image under the entry is not a tombstone: then nothing is touched.
    """
    try:
        outcome = None
        if entry.image_id:
            outcome = _collect_whole(pool, entry, patience or LockPatience())
        if outcome is None:
            _remove_rest(pool, entry)
            outcome = Outcome.REMOVED
        if outcome is Outcome.REMOVED:
            _forget(pool, entry)
            if patience is not None:
                patience.forget(entry.image_id)
    except InUseError:
        outcome = Outcome.BUSY
    return Collected(entry, outcome)


def _forget(pool: Pool, entry: Entry) -> None:
    """Drop what still speaks of an image that is gone, its own entry last."""
    if entry.image_id:
        forget_begun(pool, entry.image_id)
    if entry.source:  # a clone that was never finished may still hold it
        children.release_from(pool, Origin(entry.source), entry.image_name)
    Directory(pool).forget(entry)


def _collect_whole(
    pool: Pool,
    entry: Entry,
    patience: LockPatience,
) -> Outcome | None:
    """Collect an image that can be opened; None if it cannot."""
    try:
        image = pool.open_raw(entry.image_id)
    except NotFoundError:
        return None
    with image:
        name = image.name
        outcome = _prepare(pool, image, patience)
    if outcome is Outcome.REMOVED:
        try:
            with contextlib.suppress(NotFoundError):
                pool.remove_image(name)
        except InUseError:
            raise
        except PreconditionError:
            return Outcome.KEPT
    return outcome


def _remove_rest(pool: Pool, entry: Entry) -> None:
    """Remove what is left of an image that was half made, or half removed.

    By its name, which librbd takes for such remains too, and only unless the
    name stands for another image by now or for a volume.
    """
    found = pool.find_image(entry.image_name)
    if found is not None:
        if entry.image_id:
            return
        record = find_record(pool, found)
        if record is not None and record.state is not VolumeState.CREATING:
            _require_tombstone(record)
    with contextlib.suppress(NotFoundError):
        pool.remove_image(entry.image_name)


def _prepare(pool: Pool, image: RawImage, patience: LockPatience) -> Outcome:
    """Take the image to where only its removal is left."""
    if image.foreign_watchers():
        return Outcome.BUSY
    # Read behind the look for watchers: a collector that closed it before that
    # has stored its state, and one that opens it from now on sees us.
    found = read_record(pool, image.image_id)
    _require_tombstone(found)
    if found.state is VolumeState.COLLECTING and not patience.ours_or_dead(
        image.image_id, "another collector"
    ):
        return Outcome.BUSY
    image.acquire_lock()
    _tidy(pool, image, patience)
    if image.dependants():
        return Outcome.KEPT

    def collecting(present: Record) -> Record:
        _require_tombstone(present)
        if present.state is VolumeState.COLLECTING:
            return present
        # Looked at again for each try: an intent that is written now either is
        # seen here or finds the record in `collecting`.
        if present.snapshots or present.children:
            return present
        return present.moved_to(VolumeState.COLLECTING)

    patience.begin(image.image_id)
    record = change_record(pool, image.image_id, collecting)
    if record.state is not VolumeState.COLLECTING:
        return Outcome.KEPT
    if record.mode.encrypted:
        with contextlib.suppress(ExhaustedError):
            # A full pool takes no write; removing the image makes the room.
            image.erase_header(_header_length(record))
        change_record(
            pool,
            image.image_id,
            lambda present: dataclasses.replace(present, ring=None),
        )
    return Outcome.REMOVED


def _tidy(pool: Pool, image: RawImage, patience: LockPatience) -> None:
    """Let go of what snapshots and clones left that nobody will finish.

    A snapshot that is only begun can never be completed on a deleted volume.
    """
    record = children.settle(pool, image.image_id, patience)
    for snapshot in record.snapshots:
        if snapshot.state is not SnapshotState.MAKING:
            continue
        if record.children_of(snapshot.rbd_name):
            continue
        taking.withdraw(pool, image, snapshot.rbd_name)
    taking.remove_orphans(pool, image)


def _require_tombstone(record: Record) -> None:
    if record.state not in {VolumeState.DELETED, VolumeState.COLLECTING}:
        message = (
            f"image {record.image_id} is listed as deleted, but its record says"
            f" {record.state.value}: it is left alone"
        )
        raise RecordError(message)


def _header_length(record: Record) -> int:
    """Bytes that hold key material: a foreign header fills all its room."""
    if record.mode is EncryptionMode.KEYRING:
        return SPARSE_LENGTH
    return min(record.layout.reserve, HEADER_ROOM)
