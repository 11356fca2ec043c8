# SPDX-License-Identifier: Apache-2.0
"""A node that is dead to Ceph, and what its administrator says of it.

The process that serves a volume is stopped, so that Ceph does not hear of it any
more.  What it still had to write would go out once it goes on, as from a node that
only hung: that is what fencing is for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from tests.cluster.kube import Kube
from tests.cluster.parts import NAMESPACE
from tests.cluster.parts import pod_on

_TAINT: Final = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}
_PYTHON: Final = "/opt/rbdcrypt/bin/python"
_WORKER: Final = """
import sys
from pathlib import Path
from csi_driver.datapath.client import Datapath
from csi_driver.domain.ids import VolumeId
datapath = Datapath(Path("/run/rbdcrypt-csi/datapath.sock"))
print(datapath.status(VolumeId.parse(sys.argv[1])).worker_pid)
"""


@contextlib.contextmanager
def frozen(kube: Kube, node: str, volume_id: str) -> Iterator[None]:
    """Stop the process that serves a volume on a node; let it go on afterwards."""
    script = f"{_PYTHON} -c '{_WORKER}' {volume_id}"
    worker = int(kube.run(pod_on(kube, "node", node), NAMESPACE, script))
    datapath = pod_on(kube, "datapath", node)
    kube.run(datapath, NAMESPACE, f"kill -STOP {worker}")
    try:
        yield
    finally:
        kube.run(datapath, NAMESPACE, f"kill -CONT {worker}")


@contextlib.contextmanager
def out_of_service(kube: Kube, node: str) -> Iterator[None]:
    """Say that a node is off, as docs/troubleshooting.md does."""
    before = kube.get("Node", node)["spec"].get("taints") or []
    kube.patch("Node", node, "", {"spec": {"taints": [*before, _TAINT]}})
    try:
        yield
    finally:
        kube.patch("Node", node, "", {"spec": {"taints": before}})
