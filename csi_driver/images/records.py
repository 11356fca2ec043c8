# SPDX-License-Identifier: Apache-2.0
"""Storing records: one metadata key, changed by compare-and-set alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.record import LONGEST_RECORD
from csi_driver.domain.record import Record
from csi_driver.images.port import Pool

RECORD_KEY: Final = ".rbdcrypt"
"""Keys that begin with `.rbd` are the ones librbd does not copy to a clone."""

_TRIES: Final = 20


def read_record(pool: Pool, image_id: str) -> Record:
    """Return the record of an image.

    NotFoundError if there is no such image, or one without a record, which is
    not a volume; RecordError if it cannot be trusted.
    """
    record = find_record(pool, image_id)
    if record is None:
        message = f"image {image_id} is not a volume of this driver"
        raise NotFoundError(message)
    return record


def find_record(pool: Pool, image_id: str) -> Record | None:
    """Return the record of an image, None if it has none."""
    text = pool.read_metadata(image_id, RECORD_KEY)
    return None if text is None else _parse(image_id, text)


def create_record(pool: Pool, record: Record) -> None:
    """Store the first record of an image; ConflictError if it has one.

    ExhaustedError if it is too long.
    """
    pool.swap_metadata(record.image_id, RECORD_KEY, None, _text(record))


def change_record(
    pool: Pool,
    image_id: str,
    change: Callable[[Record], Record],
) -> Record:
    """Apply `change` to the record as it is now, and store the result.

    Whoever loses the compare-and-set reads again and decides anew, so
    `change` may run several times and raises if it no longer applies.
    Returns what is stored.  PendingError if others keep winning; ExhaustedError
    if it would be too long to be read again.
    """
    for _ in range(_TRIES):
        old = pool.read_metadata(image_id, RECORD_KEY)
        if old is None:
            message = f"image {image_id} is not a volume of this driver"
            raise NotFoundError(message)
        present = _parse(image_id, old)
        wanted = change(present)
        new = _text(wanted)
        if new == old:
            return present
        try:
            pool.swap_metadata(image_id, RECORD_KEY, old, new)
        except ConflictError:
            continue
        return wanted
    message = f"the record of image {image_id} is changed by others all the time"
    raise PendingError(message)


def _text(record: Record) -> str:
    """Write a record down; one that nobody could read would lose the volume."""
    text = record.to_json()
    if len(text) > LONGEST_RECORD:
        message = (
            f"the record of volume {record.name!r} would take {len(text)} bytes, more"
            f" than {LONGEST_RECORD}: delete some of its snapshots"
        )
        raise ExhaustedError(message)
    return text


def _parse(image_id: str, text: str) -> Record:
    record = Record.from_json(text)
    if record.image_id != image_id:
        message = (
            f"the record on image {image_id} belongs to image {record.image_id}:"
            " it was copied there by other means, and is not used"
        )
        raise RecordError(message)
    return record
