# SPDX-License-Identifier: Apache-2.0
"""The cluster's nodes: who they are, and how their networks reach each other.

Each node is an isolated lab: its mounts, its processes and its network are its
own.  The first one is also where Ceph and the control plane run.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING
from typing import Final

from labtools import places
from labtools import shell

if TYPE_CHECKING:
    from pathlib import Path

    from labtools.places import Lab
    from labtools.processes import Process

_LINK: Final = "node2"
"""The first node's end of the wire; the second one's is called eth0."""


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node as Kubernetes knows it."""

    name: str
    address: str
    pods: str
    """The network of its pods."""
    taints: tuple[dict[str, str], ...] = ()
    """What keeps pods away that do not tolerate it."""


FIRST: Final = Node("lab-node", places.NODE_ADDRESS, "10.244.0.0/24")
SECOND: Final = Node(
    "lab-node-2",
    "10.123.0.2",
    "10.244.1.0/24",
    # Only for those who ask for it: what a test says of one node stays true.
    ({"key": "lab/second", "effect": "NoSchedule"},),
)
NODES: Final = (FIRST, SECOND)

SERVICE_ADDRESS: Final = "10.96.0.1"
"""Of the API server, for pods."""


def node_of(lab: Lab) -> Node:
    """Return which node a lab is."""
    return SECOND if lab.run.name.endswith("-2") else FIRST


def lab_of_second(first: Lab) -> Lab:
    """Return the lab that the second node is."""
    return dataclasses.replace(
        first,
        data=first.data.with_name(f"{first.data.name}-2"),
        run=first.run.with_name(f"{first.run.name}-2"),
    )


def connect(first: Process, second: Process) -> None:
    """Lay a wire between the networks that two processes are in; runs outside."""
    shell.apt_install("ip", "iproute2")
    peer = ("peer", "name", "eth0", "netns", str(second.pid))
    shell.run(*_ip(first), "link", "add", _LINK, "type", "veth", *peer)
    there = (SECOND.address, SECOND.pods)
    here = (FIRST.address, FIRST.pods, SERVICE_ADDRESS)
    for process, device, routes, source in (
        (first, _LINK, there, FIRST.address),
        (second, "eth0", here, SECOND.address),
    ):
        ip = _ip(process)
        shell.run(*ip, "link", "set", device, "up")
        for route in routes:
            shell.run(*ip, "route", "add", route, "dev", device, "src", source)


def _ip(process: Process) -> tuple[str, ...]:
    """Return the machine's `ip`, which knows its process ids, in another network."""
    return ("nsenter", "--target", str(process.pid), "--net", "--", "ip")


def first_data(lab: Lab) -> Path:
    """Return the data directory of the first node's lab, from any node."""
    name = lab.data.name.removesuffix("-2")
    return lab.data.with_name(name)
