# SPDX-License-Identifier: Apache-2.0
"""What clones in the making hold on their source, and letting go of it.

A clone's intent stands in its source's record from before the clone is begun
until librbd knows the clone as a child.  Whoever finds an intent can tell from
the clone's own directory entry whether it still counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Final

import structlog

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.ids import Location
from csi_driver.domain.lineage import ChildIntent
from csi_driver.domain.lineage import Origin
from csi_driver.domain.record import Record
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.images.directory import Directory
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.snapshots import finish_deletion
from csi_driver.provisioning.snapshots import with_state

_log = structlog.get_logger(__name__)

_SLOW: Final = 4
"""How much more patience a clone's maker gets: to take a snapshot of a volume
whose node has died takes Ceph half a minute."""


def settle(pool: Pool, image_id: str, patience: LockPatience) -> Record:
    """Drop what nobody makes any more, with the snapshots that were taken for it.

    `pool` is the source's.  Also finishes deletions of snapshots that were
    interrupted.  Returns the source's record; NotFoundError without it.
    """
    record = read_record(pool, image_id)
    over = [child for child in record.children if not _under_way(pool, child, patience)]
    for child in over:
        release(pool, image_id, child.image_name)
    if over:
        record = read_record(pool, image_id)
    for snapshot in record.snapshots:
        if snapshot.state in {SnapshotState.DELETING, SnapshotState.KEPT}:
            _finish(pool, image_id, snapshot)
    return read_record(pool, image_id) if record.snapshots else record


def release(pool: Pool, image_id: str, image_name: str) -> None:
    """Drop the intent to make one clone, and the snapshot taken for it alone.

    A clone that is there keeps reading the snapshot, which lingers for it.
    """

    def without(present: Record) -> Record:
        kept = present.without_child(image_name)
        for snapshot in present.snapshots:
            if _useless(kept, snapshot):
                kept = with_state(kept, snapshot, SnapshotState.DELETING)
        return kept

    record = change_record(pool, image_id, without)
    for snapshot in record.snapshots:
        if _half_removed(snapshot):
            _finish(pool, image_id, snapshot)


def release_from(near: Pool, origin: Origin, image_name: str) -> None:
    """As `release`, wherever in the cluster of `near` the source is.

    Nothing is held by a source that is gone, or whose record is damaged; of one
    that this Ceph user may not read, who looks at the source next lets go.
    """
    try:
        release(_place_of(near, origin), origin.volume.image_id, image_name)
    except NotFoundError:
        return
    except (ForbiddenError, RecordError) as error:
        _log.warning("source not let go", clone=image_name, error=str(error))


def lets_go(near: Pool, origin: Origin, image_name: str) -> bool:
    """Tell whether nothing of the making of that clone is left at its source.

    Whose a snapshot was that is being removed cannot be told.  Where the source
    cannot be read there is nothing to do, as in `release_from`.
    """
    try:
        record = read_record(_place_of(near, origin), origin.volume.image_id)
    except (ForbiddenError, NotFoundError, RecordError):
        return True
    return not any(child.image_name == image_name for child in record.children) and (
        not any(_half_removed(each) for each in record.snapshots)
    )


def _place_of(near: Pool, origin: Origin) -> Pool:
    where = origin.volume.location
    return near.at(dataclasses.replace(where, cluster=near.location.cluster))


def _finish(pool: Pool, image_id: str, snapshot: Snapshot) -> None:
    """Finish a deletion; one that cannot be now must not keep other work.

    Such as of a snapshot that somebody protected.
    """
    try:
        finish_deletion(pool, image_id, snapshot)
    except PreconditionError as error:
        _log.warning("snapshot not removed", image=image_id, error=str(error))


def _half_removed(snapshot: Snapshot) -> bool:
    return snapshot.internal and snapshot.state is SnapshotState.DELETING


def _useless(record: Record, snapshot: Snapshot) -> bool:
    kept = snapshot.state is SnapshotState.KEPT
    return snapshot.internal and not kept and not record.children_of(snapshot.rbd_name)


def _under_way(pool: Pool, child: ChildIntent, patience: LockPatience) -> bool:
    """Tell whether a clone may still be begun by the call that intended it."""
    try:
        place = pool.at(Location(pool.location.cluster, child.pool_id, child.namespace))
    except NotFoundError:
        return False
    directory = Directory(place)
    entry = directory.find(child.volume)
    if entry is None or entry.image_name != child.image_name or entry.image_id:
        return False
    name = child.image_name
    if not patience.presumed_dead(name, name, times=_SLOW):
        return True
    with contextlib.suppress(ConflictError):  # it came further in this moment
        directory.bury(entry)
        patience.forget(child.image_name)
    return False
