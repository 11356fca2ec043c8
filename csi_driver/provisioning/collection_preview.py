# SPDX-License-Identifier: Apache-2.0
"""What a collector would do with what it finds, without doing any of it."""

from __future__ import annotations

from collections.abc import Iterator

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.images.directory import Entry
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import read_record
from csi_driver.provisioning.sweeping import ABANDONED_SECONDS
from csi_driver.provisioning.sweeping import Left

REMOVED = "would be removed"
BEGUN = (
    "being made, or abandoned: the controller takes it away once nobody has gone"
    f" on with it for {ABANDONED_SECONDS / 60:.0f} minutes"
)


def preview(pool: Pool, entry: Entry) -> str:
    """Say whether a tombstone would be removed, or what keeps it."""
    if not entry.image_id:
        return f"{REMOVED}: it was never finished"
    try:
        record = read_record(pool, entry.image_id)
        if record.state not in {VolumeState.DELETED, VolumeState.COLLECTING}:
            return f"kept: its record says {record.state.value}"
        with pool.open_raw(entry.image_id, read_only=True) as image:
            reasons = list(_reasons(image, record))
    except NotFoundError:
        return f"{REMOVED}: the image is gone or half removed"
    except RecordError as error:
        return f"kept: {error}"
    return f"kept: {'; '.join(reasons)}" if reasons else REMOVED


def preview_begun(pool: Pool, left: Left) -> str:
    """Say what becomes of a volume that was begun and not finished."""
    if left.record is None:
        return BEGUN
    try:
        with pool.open_raw(left.record.image_id, read_only=True) as image:
            watchers = list(_watchers(image))
    except NotFoundError:
        return f"{BEGUN}; its image is gone"
    return "; ".join((BEGUN, *watchers))


def _reasons(image: RawImage, record: Record) -> Iterator[str]:
    names = [each.name for each in image.snapshots() if not each.lingering]
    kept = {
        each.rbd_name: each.name or "one for a clone"
        for each in record.snapshots
        if each.state is not SnapshotState.DELETING
    }
    if names:
        yield f"snapshots {', '.join(kept.get(each, each) for each in names)}"
    clones = [
        f"{each.image_name}{' (in the trash)' if each.trashed else ''}"
        for each in image.children()
    ]
    if clones:
        yield f"clones {', '.join(clones)}"
    if record.children:
        yield f"clones being made {', '.join(e.image_name for e in record.children)}"
    yield from _watchers(image)


def _watchers(image: RawImage) -> Iterator[str]:
    watchers = image.foreign_watchers()
    if watchers:
        yield f"open by {', '.join(each.address for each in watchers)}"
