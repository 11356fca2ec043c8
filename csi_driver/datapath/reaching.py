# SPDX-License-Identifier: Apache-2.0
"""Reaching a volume on Ceph: its image, loaded, and beside it its record.

Each has a Ceph client of its own.  Both were connected in advance (`prepared`),
or are connected side by side.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future

import structlog

from csi_driver.datapath import ownership
from csi_driver.datapath.giving_way import free_lock
from csi_driver.datapath.holdings import Holdings
from csi_driver.datapath.holdings import connect_pool
from csi_driver.datapath.messages import OpenImage
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.prepared import Prepared
from csi_driver.datapath.prepared import ceph_client
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import UnavailableError
from csi_driver.nbd.librbd_connection import Connection
from csi_driver.nbd.librbd_image import ImageTarget
from csi_driver.nbd.librbd_image import LibrbdImage
from csi_driver.nbd.librbd_image import Plaintext

_log = structlog.get_logger(__name__)


def reach_image(volume: OpenVolume, prepared: Prepared | None) -> LibrbdImage:
    """Connect, open, load at once; refuse a cache."""
    if prepared is not None:
        try:
            return _load_by(volume, prepared.image)
        except (FencedError, UnavailableError) as error:
            _log.info("not using the client made ahead", error=str(error))
    return _load_by(volume, None)


def _load_by(volume: OpenVolume, connection: Connection | None) -> LibrbdImage:
    target = ImageTarget(
        pool=volume.pool_name,
        image_id=volume.volume_id.image_id,
        namespace=volume.volume_id.location.namespace,
        read_only=volume.read_only,
    )
    try:
        encryption = volume.specs or Plaintext()
        return LibrbdImage(ceph_client(volume), target, encryption, connection)
    except HeaderError as error:
        raise ownership.missing_header(error, str(volume.volume_id)) from error


def reach_record(request: OpenImage, prepared: Prepared | None) -> Holdings:
    """Connect for the record, unless that is done already, beside the load.

    A reader keeps the handle that was opened for writing, and never writes: it
    is the watcher that others see.
    """
    volume = request.volume
    with contextlib.ExitStack() as undo:
        pool = prepared.pool_for(volume) if prepared else None
        if prepared and pool:
            connection = prepared.records
        else:
            connection, pool = connect_pool(
                volume.volume_id, volume.monitors, volume.user_id, volume.key
            )
        undo.callback(connection.close)
        held = Holdings(
            connection, pool, volume.volume_id, volume.node_id, volume.boot_id
        )
        if volume.read_only:
            held.watcher = pool.open_raw(volume.volume_id.image_id)
            undo.callback(held.watcher.close)
            free_lock(held.watcher, held, request.predecessor)
        undo.pop_all()
    return held


def close_when_there(holding: Future[Holdings]) -> None:
    """Close what was opened beside a load that failed."""
    try:
        held = holding.result()
    except DriverError as error:
        _log.info("opening failed twice", error=str(error))
    else:
        held.close()
