# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi node`: Identity and Node."""

from __future__ import annotations

from csi_driver.commands import composition
from csi_driver.commands import service
from csi_driver.datapath.client import Datapath
from csi_driver.images.probe import probe_library
from csi_driver.rpc.health import Health
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.node import Node
from csi_driver.rpc.server import CsiServer
from csi_driver.rpc.server import Services
from csi_driver.rpc.server import serve_until_told
from csi_driver.settings import NodeSettings


def run(settings: NodeSettings) -> None:
    """Serve until told to stop; what is staged stays."""
    service.start_logging(settings)
    service.protect_keys()
    health = Health()
    server = CsiServer(
        settings.socket_path,
        Services(
            identity=Identity(service.plugin(settings), health),
            node=Node(composition.stager(settings), settings.node_id),
        ),
        recorder=service.recorder(settings, Datapath(settings.datapath_path)),
    )
    health.check_beside(probe_library)
    service.leave(all_ended=serve_until_told(server))
