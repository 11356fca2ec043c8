# SPDX-License-Identifier: Apache-2.0
"""Who hears of what happens: Events where there is an API server, else nobody.

Also puts together the thread of the node service that looks for what happens
between calls.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from collections.abc import Iterator
from typing import Final

from csi_driver.commands.composition import Ceph
from csi_driver.commands.composition import kubernetes_api
from csi_driver.datapath.client import Datapath
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.ids import static_volume_name
from csi_driver.domain.notices import Notices
from csi_driver.domain.notices import Untold
from csi_driver.images.records import read_record
from csi_driver.kube.claims import Claims
from csi_driver.kube.event_objects import Reporter
from csi_driver.kube.events import Events
from csi_driver.settings import ClusterSettings
from csi_driver.staging.flatten_watch import FlattenWatch
from csi_driver.staging.loss_watch import LossWatch
from csi_driver.staging.pool_watch import PoolWatch
from csi_driver.staging.state import Published
from csi_driver.staging.watching import Watch

_COMMAND_SECONDS: Final = 10.0
"""How long a command waits at its end for its Events to be posted."""


def events(
    settings: ClusterSettings, storage: Ceph, instance: str = ""
) -> Events | None:
    """Return what posts Events, not started; None without an API server.

    `instance` is the node's name, by default that of the pod.
    """
    api = kubernetes_api(settings)
    if api is None:
        return None
    return Events(
        api,
        Claims(settings.driver_name, api, _volume_names(storage)),
        Reporter(settings.driver_name, instance or socket.gethostname()),
    )


@contextlib.contextmanager
def told(settings: ClusterSettings, storage: Ceph) -> Iterator[Notices]:
    """Yield who hears of what a command does, until it has ended."""
    posting = events(settings, storage)
    if posting is None:
        yield Untold()
        return
    posting.start()
    try:
        yield posting
    finally:
        posting.close(_COMMAND_SECONDS)


def watch(
    datapath: Datapath,
    storage: Ceph,
    notices: Notices,
    published: Published,
    woken: threading.Event,
) -> Watch:
    """Return the thread that looks at this node's open volumes, not started."""
    observers = (
        FlattenWatch(notices),
        LossWatch(notices, published),
        PoolWatch(storage.connections, notices, published),
    )
    return Watch(datapath.list, observers, woken)


def _volume_names(storage: Ceph) -> Callable[[VolumeId], str]:
    """Return what finds the name of a volume's PersistentVolume."""

    def name_of(volume_id: VolumeId) -> str:
        with storage.connections.pool_at(volume_id.location) as pool:
            record = read_record(pool, volume_id.image_id)
        return record.parameters.pv_name or static_volume_name(volume_id.image_id)

    return name_of
