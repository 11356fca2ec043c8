# SPDX-License-Identifier: Apache-2.0
"""kubelet, and the control groups that its pods live in."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import Final

from labtools import processes
from labtools.processes import Process

from clustertools import runtime
from clustertools.nodes import node_of

if TYPE_CHECKING:
    from labtools.places import Lab

    from clustertools.certificates import Identities
    from clustertools.nodes import Node

ROOT: Final = Path("/var/lib/kubelet")
_CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclasses.dataclass(frozen=True, slots=True)
class Kubelet:
    """The kubelet of the node that a lab is."""

    lab: Lab
    programs: Path
    identities: Identities

    def up(self) -> None:
        """Start it; whether the node gets ready is for the API server to say."""
        for directory in cgroups(self.lab):
            directory.mkdir(exist_ok=True)
        node = node_of(self.lab)
        config = self.lab.etc / "kubelet.json"
        config.write_text(json.dumps(self._config(node), indent=2) + "\n")
        command = (
            self.programs / "kubelet",
            f"--config={config}",
            f"--kubeconfig={self.identities.kubeconfig(node.name)}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            f"--root-dir={ROOT}",
        )
        processes.start(command, self._pid_file, self.lab.log / "kubelet.log")

    def restart(self) -> None:
        """Stop it, as an upgrade would; pods go on meanwhile; start it again."""
        running = Process.load(self._pid_file)
        if running:
            processes.stop([running])
        self.up()

    @property
    def _pid_file(self) -> Path:
        return self.lab.run / "pids/kubelet"

    def _config(self, node: Node) -> dict[str, Any]:
        known = self.identities
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": node.address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(known.certificate("ca"))},
            },
            # The API server alone has a certificate of this authority for it.
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": str(known.certificate(f"{node.name}-server")),
            "tlsPrivateKeyFile": str(known.key(f"{node.name}-server")),
            "containerRuntimeEndpoint": f"unix://{runtime.SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": _cgroup(self.lab),
            "failCgroupV1": False,
            "failSwapOn": False,
            # Lower needs CAP_SYS_RESOURCE, and so do more files.
            "oomScoreAdj": 0,
            "maxOpenFiles": 20000,
            "maxPods": 200,
            "registerWithTaints": list(node.taints),
            "resolvConf": "/etc/resolv.conf",
            "podLogsDir": str(self.lab.data / "pods"),
            "makeIPTablesUtilChains": False,
            "localStorageCapacityIsolation": False,
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
                "imagefs.inodesFree": "0%",
            },
            # Nobody else asks, and tests wait for what these decide.
            "nodeStatusUpdateFrequency": "4s",
            "syncFrequency": "10s",
            "registryPullQPS": 0,
            "serializeImagePulls": False,
        }


def _cgroup(lab: Lab) -> str:
    return f"/{lab.run.name}"


def cgroups(lab: Lab) -> list[Path]:
    """Return the lab's control group in each hierarchy of the machine.

    It has one of its own, or the kubelets of two labs would end each other's pods.
    """
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / _cgroup(lab).lstrip("/")]
    hierarchies = [each for each in _CGROUPS.iterdir() if each.is_dir()]
    return [each / _cgroup(lab).lstrip("/") for each in hierarchies]


def remove_cgroups(lab: Lab, seconds: float = 10) -> None:
    """Remove the lab's control groups, once their last processes are gone."""
    deadline = time.monotonic() + seconds
    for top in cgroups(lab):
        while top.exists():
            for each in sorted(top.rglob("*/"), reverse=True):
                _remove(each)
            if _remove(top) or time.monotonic() > deadline:
                break
            time.sleep(0.1)


def _remove(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True
