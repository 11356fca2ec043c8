# SPDX-License-Identifier: Apache-2.0
"""What is done inside the cluster's namespaces, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

from labtools import ceph
from labtools import shell

from clustertools import driver
from clustertools import network
from clustertools import nodes
from clustertools import snapshots
from clustertools.certificates import Identities
from clustertools.controlplane import ControlPlane
from clustertools.kubectl import Kubectl
from clustertools.kubelet import Kubelet
from clustertools.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labtools.places import Lab

STEPS: Final = ("start", "address", "join", "load", "ready", "install", "restart")
PARTS: Final = ("kubelet",)
"""What can be restarted by hand."""


def identities(lab: Lab) -> Identities:
    """Return where the cluster's keys and kubeconfigs are."""
    return Identities(nodes.first_data(lab) / "pki")


def programs(lab: Lab) -> Path:
    """Return the directory of the programs that the cluster was started with."""
    return (lab.run / "programs").resolve()


def kubectl(lab: Lab) -> Kubectl:
    """Return kubectl as the cluster's administrator."""
    return Kubectl(programs(lab), identities(lab).kubeconfig("admin"))


def take_step(lab: Lab, step: str, words: Sequence[str]) -> None:
    """Do one of `STEPS`."""
    match step:
        case "start":
            _start(lab)
        case "address":
            network.up(nodes.node_of(lab))
        case "join":
            _start_node(lab)
        case "load":
            shell.say("Kubernetes: loading images")
            Runtime(lab).load(words)
        case "ready":
            _wait_until_ready(kubectl(lab), words)
        case "install":
            driver.install(lab, kubectl(lab), Path(*words))
        case _:
            _restart(lab)


def _start(lab: Lab) -> None:
    """Start Ceph, the control plane and the first node."""
    network.up(nodes.FIRST)
    network.serve_api(lab)
    ceph.up(lab)
    known = identities(lab)
    known.make()
    shell.say("Kubernetes: starting")
    ControlPlane(lab, programs(lab), known).up()
    _start_node(lab)


def _start_node(lab: Lab) -> None:
    Runtime(lab).up()
    _kubelet(lab).up()


def _restart(lab: Lab) -> None:
    """Restart kubelet; ready is also what the node's object says of the last one."""
    _kubelet(lab).restart()
    asking, node = kubectl(lab), nodes.node_of(lab).name
    _wait_until_ready(asking, [node])
    what = f"kubelet of {node} does not learn of its pods"
    asking.wait_until(what, lambda: asking.pods_known(node), seconds=60)


def _kubelet(lab: Lab) -> Kubelet:
    return Kubelet(lab, programs(lab), identities(lab))


def _wait_until_ready(asking: Kubectl, names: Sequence[str]) -> None:
    for name in names:
        asking.wait(f"no {name} registers", "get", "node", name, seconds=60)
        ready = ("wait", "--for=condition=Ready", f"node/{name}", "--timeout=1s")
        asking.wait(f"{name} is not ready", *ready, seconds=90)
    account = ("get", "serviceaccount", "default")
    asking.wait("no service accounts are made", *account, seconds=60)
    snapshots.install(asking)
    shell.say("Kubernetes: ready")
