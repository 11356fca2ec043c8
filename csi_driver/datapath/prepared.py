# SPDX-License-Identifier: Apache-2.0
"""The Ceph clients that a spare worker connects before it is given a volume.

Connecting is a third of a bare open, and two clients that connect at once take
three times as long as one on two processors (measured on 18.2.7), so both are
there in advance.  They are the worker's own, and so its volume's alone: fencing
a volume still fences no other.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import structlog

from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.messages import Prepare
from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.errors import DriverError
from csi_driver.images.ceph import connect
from csi_driver.images.port import Ceph
from csi_driver.images.port import Pool
from csi_driver.images.records import read_record
from csi_driver.nbd.librbd_connection import CephClient
from csi_driver.nbd.librbd_connection import Connection

_SETTINGS: Final = {"rbd_concurrent_management_ops": "1"}
"""A flatten beside I/O copies one object after the other: with the default of 10
a write in a hundred took 105 ms and more, with 1 it took 10 (measured)."""

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """Two connected Ceph clients and what they were connected with.

    `image` is for the image and its key, `records` for what belongs beside it.
    """

    request: Prepare
    image: Connection
    records: Ceph

    def fits(self, volume: OpenVolume) -> bool:
        """Tell whether the volume is reached by the same user in the same place."""
        ready = self.request
        return (ready.cluster, ready.monitors, ready.user_id) == (
            volume.volume_id.location.cluster,
            volume.monitors,
            volume.user_id,
        ) and ready.key == volume.key

    def pool_for(self, volume: OpenVolume) -> Pool | None:
        """Return the volume's pool, or None and close the client for records.

        None if that client, which may have been idle for days and may have been
        fenced, cannot read the volume's record.
        """
        try:
            pool = self.records.pool_at(volume.volume_id.location)
            read_record(pool, volume.volume_id.image_id)
        except DriverError as error:
            _log.info("not using the client made ahead", error=str(error))
            self.records.close()
            return None
        return pool

    def close(self) -> None:
        """Disconnect both."""
        self.image.close()
        self.records.close()


def prepare(request: Prepare) -> Prepared:
    """Connect; UnavailableError or SecretError if Ceph does not let us."""
    config = ClusterConfig(
        request.cluster, request.monitors, request.user_id, key_file="", pools=()
    )
    records = connect(config, CephUser(request.user_id, request.key))
    try:
        image = Connection(ceph_client(request))
    except BaseException:
        records.close()
        raise
    return Prepared(request, image, records)


def ceph_client(source: Prepare | OpenVolume) -> CephClient:
    """Return how the image's client connects, the same ahead and later."""
    monitors = ",".join(source.monitors)
    return CephClient(monitors, source.user_id, source.key, _SETTINGS)
