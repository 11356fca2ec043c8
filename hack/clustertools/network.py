# SPDX-License-Identifier: Apache-2.0
"""Addresses of the cluster, inside its own network namespace.

A node's address and the API server's Service address are on loopback
devices, so that nothing listens outside of the namespace; a forwarder
stands in for kube-proxy, since the API is the only Service that pods call.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from typing import Final

from labtools import processes
from labtools import shell

from clustertools import nodes

if TYPE_CHECKING:
    from pathlib import Path

    from labtools.places import Lab

    from clustertools.nodes import Node

API_PORT: Final = 6443
SERVICE_CIDR: Final = "10.96.0.0/16"
CNI_PLUGINS: Final = "/usr/lib/cni"


def up(node: Node) -> None:
    """Give a node's network namespace its address."""
    shell.run("ip", "link", "set", "lo", "up")
    shell.run("ip", "address", "add", f"{node.address}/32", "dev", "lo")


def serve_api(lab: Lab) -> None:
    """Let pods reach the API server at its Service address."""
    address = nodes.SERVICE_ADDRESS
    shell.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    listen = f"TCP-LISTEN:443,bind={address},fork,reuseaddr"
    forward = ("socat", listen, f"TCP:{nodes.FIRST.address}:{API_PORT}")
    processes.start(forward, lab.run / "pids/api-service", lab.log / "api-service.log")


def write_pod_network(node: Node, directory: Path, state: Path) -> None:
    """Write the configuration of the pods' network: a bridge, no way outside."""
    ranges = [[{"subnet": node.pods}]]
    bridge = {
        "type": "bridge",
        "bridge": "pods0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(state),
            "ranges": ranges,
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    config = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "10-pods.conflist").write_text(json.dumps(config, indent=2) + "\n")
