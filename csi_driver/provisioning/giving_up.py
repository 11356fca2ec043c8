# SPDX-License-Identifier: Apache-2.0
"""Giving up a volume that was begun and never finished: it becomes a tombstone.

Nobody was ever told of such a volume, and no byte of a tenant's is on it.  Two
compare-and-set operations decide against everybody else who may go on with it:
on the directory entry, as long as no image is filed there, and on the record
from then on.  A create that lost finds that out at its own next one and starts
over; one that came further in the meantime makes this one lose.  Between the
two steps here anybody may carry out the second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.provisioning.owner_lock import IsDead
from csi_driver.provisioning.owner_lock import take_lock


def give_up(pool: Pool, entry: Entry, record: Record | None, is_dead: IsDead) -> None:
    """Turn what was found under `entry` into a tombstone, if it still is that.

    `record` is None as long as the entry has no image id.  ConflictError if
    somebody went on with it; PendingError while a live process owns its lock.
    `pool` belongs to a Rados instance of the caller's own.
    """
    directory = Directory(pool)
    if record is None:
        directory.bury(entry)
        return
    _end(pool, record, is_dead)
    with contextlib.suppress(ConflictError):  # somebody else has buried it
        directory.bury(entry)


def _end(pool: Pool, found: Record, is_dead: IsDead) -> None:
    image_id = found.image_id
    end = _ended(found)
    try:
        with pool.open_raw(image_id) as image:
            end(read_record(pool, image_id))
            take_lock(image, found.name, is_dead)
            change_record(pool, image_id, end)
    except NotFoundError as error:
        message = f"volume {found.name!r} was taken away meanwhile: {error}"
        raise ConflictError(message) from error


def _ended(found: Record) -> Callable[[Record], Record]:
    def change(present: Record) -> Record:
        if present != found:
            message = f"somebody went on with volume {found.name!r}"
            raise ConflictError(message)
        return present.moved_to(VolumeState.DELETED)

    return change
