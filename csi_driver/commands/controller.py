# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi controller`: Identity, Controller and the collector."""

from __future__ import annotations

from csi_driver.commands import composition
from csi_driver.commands import noticing
from csi_driver.commands import service
from csi_driver.commands import watching
from csi_driver.domain.notices import Untold
from csi_driver.images.probe import probe_cryptsetup
from csi_driver.images.probe import probe_library
from csi_driver.rpc.controller import Controller
from csi_driver.rpc.health import Health
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.server import CsiServer
from csi_driver.rpc.server import Services
from csi_driver.rpc.server import serve_until_told
from csi_driver.settings import ControllerSettings


def run(settings: ControllerSettings) -> None:
    """Serve until told to stop."""
    service.start_logging(settings)
    service.protect_keys()
    storage = composition.ceph(settings)
    events = noticing.events(settings, storage)
    work = composition.provisioning(settings, storage, events or Untold())
    health = Health()
    collected = work.collector.counted
    with watching.controller(settings, events, collected) as recorder:
        server = CsiServer(
            settings.socket_path,
            Services(
                identity=Identity(service.plugin(settings), health),
                controller=Controller(work.volumes),
            ),
            recorder=recorder,
        )
        health.check_beside(_probe)
        work.collector.start()
        if events is not None:
            events.start()
        all_ended = serve_until_told(server)
        work.collector.stop()
        if events is not None:
            all_ended &= events.close()
    service.leave(all_ended=all_ended)


def _probe() -> None:
    """Look for everything that a CreateVolume needs here."""
    probe_library()
    probe_cryptsetup()
