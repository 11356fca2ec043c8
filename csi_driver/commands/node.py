# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi node`: Identity and Node, registered with this node's kubelet."""

from __future__ import annotations

import contextlib
import threading

from csi_driver.commands import composition
from csi_driver.commands import noticing
from csi_driver.commands import service
from csi_driver.commands import watching
from csi_driver.datapath.client import Datapath
from csi_driver.domain.notices import Untold
from csi_driver.images.probe import probe_library
from csi_driver.rpc.health import Health
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.node import Node
from csi_driver.rpc.registration.offer import offered
from csi_driver.rpc.registration.servicer import Driver
from csi_driver.rpc.registration.standing import Standing
from csi_driver.rpc.server import CsiServer
from csi_driver.rpc.server import Services
from csi_driver.rpc.server import serve_until_told
from csi_driver.settings import NodeSettings


def run(settings: NodeSettings) -> None:
    """Serve until told to stop; what is staged stays."""
    service.start_logging(settings)
    service.protect_keys()
    storage = composition.ceph(settings)
    datapath = Datapath(settings.datapath_path)
    events = noticing.events(settings, storage, settings.node_id)
    notices = events or Untold()
    woken = threading.Event()
    stager = composition.stager(settings, storage, notices, woken.set)
    watch = noticing.watch(datapath, storage, notices, stager.published, woken)
    health = Health()
    standing = Standing()
    with watching.node(settings, standing, events) as recorder:
        server = CsiServer(
            settings.socket_path,
            Services(
                identity=Identity(service.plugin(settings), health),
                node=Node(stager, settings.node_id),
            ),
            recorder=recorder,
        )
        health.check_beside(probe_library)
        if events is not None:
            events.start()
            watch.start()
        registration = _registration(settings, standing)
        all_ended = serve_until_told(server, beside=registration)
        if events is not None:
            all_ended &= watch.stop() & events.close()
    service.leave(all_ended=all_ended)


def _registration(
    settings: NodeSettings, standing: Standing
) -> contextlib.AbstractContextManager[None]:
    """Return what registers with kubelet while it is entered, if that is wanted."""
    if settings.registration_socket is None:
        return contextlib.nullcontext()
    endpoint = settings.kubelet_endpoint or settings.socket_path
    driver = Driver(settings.driver_name, str(endpoint))
    return offered(settings.registration_socket, driver, standing)
