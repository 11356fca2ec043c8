# SPDX-License-Identifier: Apache-2.0
"""Deleting a volume: it becomes a tombstone, which is collected later.

A delete returns as soon as nobody can use the volume any more and its name is
free; it needs no Secret.  Whether the image can be removed, and when, is the
collector's business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Final

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.images.directory import Directory
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record

PASSING_SECONDS: Final = 2.0
"""How long somebody who is no export may have the image open."""

_LOOK_SECONDS: Final = 0.05


def delete_volume(pool: Pool, image_id: str) -> None:
    """Turn a volume into a tombstone; one that is gone needs nothing.

    InUseError while it is open anywhere; PendingError while it is being made.
    `pool` belongs to a Rados instance of this call's own.
    """
    try:
        record = read_record(pool, image_id)
        if record.state is VolumeState.CREATING:
            message = f"volume {record.name!r} is still being created"
            raise PendingError(message)
        if record.state is VolumeState.READY:
            record = _mark_deleted(pool, record)
        _bury(pool, record)
    except NotFoundError:
        return


def _mark_deleted(pool: Pool, record: Record) -> Record:
    with pool.open_raw(record.image_id) as image:
        _require_unused(image, record)
        try:
            image.acquire_lock()
        except InUseError as error:
            raise _in_use(record, str(error)) from error

        def tombstone(present: Record) -> Record:
            # Looked at again for each try: an export that registers itself
            # changes the record, so it is either seen here or it sees this.
            if present.state is not VolumeState.READY:
                return present
            _require_unused(image, present)
            return dataclasses.replace(
                present.moved_to(VolumeState.DELETED),
                exports=(),
            )

        return change_record(pool, record.image_id, tombstone)


def _require_unused(image: RawImage, record: Record) -> None:
    """Refuse a volume that somebody has open, once that is not a passing thing.

    Whoever takes a snapshot has it open for a moment, and so has librbd where a
    clone of it is removed: it opens the parent to clean up there (18.2.7).
    """
    nodes = {each.watcher_address or each.client_address for each in record.exports}
    until = time.monotonic() + PASSING_SECONDS
    while watchers := image.foreign_watchers():
        staged = any(each.address in nodes for each in watchers)
        if staged or time.monotonic() > until:
            raise _in_use(record, f"open by {watchers[0].address}")
        time.sleep(_LOOK_SECONDS)


def _in_use(record: Record, found: str) -> InUseError:
    nodes = ", ".join(each.node_id for each in record.exports) or "none"
    return InUseError(
        f"volume {record.name!r} is in use ({found}; nodes that staged it:"
        f" {nodes}): unstage it there, then delete it",
    )


def _bury(pool: Pool, record: Record) -> None:
    """Move the volume's entry to the deleted ones, if it still is its own."""
    directory = Directory(pool)
    entry = directory.find(record.name)
    if entry is None or entry.image_id != record.image_id:
        return  # done before, and the name may stand for a later volume
    with contextlib.suppress(ConflictError):  # somebody else just did it
        directory.bury(entry)
