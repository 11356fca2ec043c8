# SPDX-License-Identifier: Apache-2.0
"""What a worker holds on Ceph beside its image: connection, entry, watcher.

Also taking back what a dead worker of this node left there: its lock, which is
broken and its client fenced by that, and its entry in the record.
"""

from __future__ import annotations

import contextlib
import dataclasses

import structlog

from csi_driver.datapath import ownership
from csi_driver.datapath.messages import Fenced
from csi_driver.datapath.messages import Predecessor
from csi_driver.datapath.messages import Release
from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import Record
from csi_driver.domain.secrets import SecretBytes
from csi_driver.images.ceph import connect
from csi_driver.images.port import Ceph
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(slots=True)
class Holdings:
    """The second Ceph client of a worker, for records and raw sizes.

    `entry` is what stands in the record for this export; `watcher` a reader's
    handle that is open for writing and never written; `fenced` the dead holder
    whose lock had to be broken.
    """

    connection: Ceph
    pool: Pool
    volume_id: VolumeId
    node_id: str
    boot_id: str
    entry: ExportEntry | None = None
    watcher: RawImage | None = None
    fenced: Fenced | None = None

    def break_dead_lock(self, raw: RawImage, predecessor: Predecessor) -> None:
        """Break the lock of a dead worker: this node's own, or any whose watch ended.

        Ceph ends the watch of a client that it has not heard of for 30 s;
        librbd itself would take such a lock, too.  InUseError names the holder
        if it may be alive.
        """
        owner = raw.lock_owner()
        if owner is None:
            return
        if owner.address in watching(raw):
            record = read_record(self.pool, self.volume_id.image_id)
            ownership.require_dead_predecessor(
                owner.address, record, self.node_id, self.boot_id, predecessor
            )
        _log.warning(
            "breaking the lock of a dead worker",
            volume=str(self.volume_id),
            client=owner.address,
        )
        with contextlib.suppress(NotFoundError):  # it expired in this moment
            raw.break_lock(owner)
            self.fenced = Fenced(self._node_of(owner.address), owner.address)

    def _node_of(self, address: str) -> str:
        """Return whose export a client was, for people to read; "" if unknown."""
        with contextlib.suppress(DriverError):
            record = read_record(self.pool, self.volume_id.image_id)
            return ownership.node_of(address, record)
        return ""

    def without_dead_exports(self, record: Record) -> Record:
        """Return the record without what nodes left there that are gone.

        Their clients watch the image no more.  An export is registered after
        its client began to watch, so none that is about to serve is dropped.
        """
        if all(each.node_id == self.node_id for each in record.exports):
            return record
        with self.pool.open_raw(self.volume_id.image_id) as raw:
            cleared = record.without_dead_exports(self.node_id, watching(raw))
        for each in set(record.exports) - set(cleared.exports):
            _log.warning(
                "dropping the export of a node that is gone",
                volume=str(self.volume_id),
                node=each.node_id,
                client=each.client_address,
            )
        return cleared

    def unregister(self) -> None:
        """Take this export, and no other, out of the record."""
        entry = self.entry
        if entry is None:
            return

        def without(record: Record) -> Record:
            kept = tuple(each for each in record.exports if each != entry)
            return dataclasses.replace(record, exports=kept)

        change_record(self.pool, self.volume_id.image_id, without)
        self.entry = None

    def close(self) -> None:
        """Close the watcher and disconnect."""
        if self.watcher is not None:
            self.watcher.close()
            self.watcher = None
        self.connection.close()


def watching(raw: RawImage) -> frozenset[str]:
    """Return the addresses of the other clients that have the image open."""
    return frozenset(each.address for each in raw.foreign_watchers())


def connect_pool(
    volume_id: VolumeId,
    monitors: tuple[str, ...],
    user_id: str,
    key: SecretBytes,
) -> tuple[Ceph, Pool]:
    """Connect a Ceph client and open the volume's pool and namespace."""
    where = volume_id.location
    config = ClusterConfig(where.cluster, monitors, user_id, key_file="", pools=())
    connection = connect(config, CephUser(user_id, key))
    try:
        return connection, connection.pool_at(where)
    except BaseException:
        connection.close()
        raise


def release(request: Release) -> None:
    """Take back what this node's dead worker holds; repeating it is harmless.

    A lock that has another owner by now is left alone.
    """
    image_id = request.volume_id.image_id
    connection, pool = connect_pool(
        request.volume_id, request.monitors, request.user_id, request.key
    )
    with contextlib.closing(connection):
        held = Holdings(
            connection, pool, request.volume_id, request.node_id, request.boot_id
        )
        try:
            with pool.open_raw(image_id) as raw:
                held.break_dead_lock(raw, request.predecessor)
            change_record(
                pool, image_id, lambda record: record.without_export(request.node_id)
            )
        except NotFoundError as error:
            _log.info("nothing to release", error=str(error))
        except InUseError as error:
            _log.info("somebody else has the volume by now", error=str(error))
