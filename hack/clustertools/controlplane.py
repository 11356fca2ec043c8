# SPDX-License-Identifier: Apache-2.0
"""etcd, the API server, the controller manager and the scheduler, as processes."""

from __future__ import annotations

import dataclasses
import time
import urllib.request
from typing import TYPE_CHECKING
from typing import Final

from labtools import processes
from labtools import shell
from labtools.processes import Process

from clustertools import network
from clustertools import nodes
from clustertools.kubectl import Kubectl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labtools.places import Lab

    from clustertools.certificates import Identities

_ETCD: Final = "http://127.0.0.1:2379"
_ETCD_PEER: Final = "http://127.0.0.1:2380"
_ISSUER: Final = "https://kubernetes.default.svc"


def wait_until(
    what: str, ready: Callable[[], bool], process: Process, log: Path, seconds: float
) -> None:
    """Wait for `ready`; LabError with the end of `log` if it does not come."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not process.alive() or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").splitlines()[-20:]
            tail = "\n".join(lines)
            raise shell.LabError(f"{what} is not ready; end of {log}:\n{tail}")
        time.sleep(0.1)


@dataclasses.dataclass(frozen=True, slots=True)
class ControlPlane:
    """The four processes; they keep nothing but etcd's data in the lab's data."""

    lab: Lab
    programs: Path
    identities: Identities

    def up(self) -> None:
        """Start all of them and wait until the API server serves."""
        etcd = self._start("etcd", self._etcd())
        log = self._log("etcd")
        wait_until("etcd", _etcd_answers, etcd, log, 30)
        server = self._start("kube-apiserver", self._server())
        kubectl = Kubectl(self.programs, self.identities.kubeconfig("admin"))
        log = self._log("kube-apiserver")
        wait_until("the API server", kubectl.server_ready, server, log, 120)
        self._start("kube-controller-manager", self._controllers())
        self._start("kube-scheduler", self._scheduler())

    def _log(self, name: str) -> Path:
        return self.lab.log / f"{name}.log"

    def _start(self, name: str, flags: list[str]) -> Process:
        command = [str(self.programs / name), *flags]
        return processes.start(command, self.lab.run / "pids" / name, self._log(name))

    def _etcd(self) -> list[str]:
        return [
            "--name=lab",
            f"--data-dir={self.lab.data}/etcd",
            "--unsafe-no-fsync",  # nobody misses this cluster after a crash
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            f"--listen-peer-urls={_ETCD_PEER}",
            f"--initial-advertise-peer-urls={_ETCD_PEER}",
            f"--initial-cluster=lab={_ETCD_PEER}",
        ]

    def _server(self) -> list[str]:
        known = self.identities
        node = "apiserver-kubelet-client"
        front = "front-proxy-client"
        return [
            f"--etcd-servers={_ETCD}",
            f"--bind-address={nodes.FIRST.address}",
            f"--secure-port={network.API_PORT}",
            f"--advertise-address={nodes.FIRST.address}",
            f"--tls-cert-file={known.certificate('apiserver')}",
            f"--tls-private-key-file={known.key('apiserver')}",
            f"--client-ca-file={known.certificate('ca')}",
            f"--kubelet-client-certificate={known.certificate(node)}",
            f"--kubelet-client-key={known.key(node)}",
            f"--kubelet-certificate-authority={known.certificate('ca')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer={_ISSUER}",
            f"--service-account-key-file={known.key('service-accounts')}",
            f"--service-account-signing-key-file={known.key('service-accounts')}",
            f"--service-cluster-ip-range={network.SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--requestheader-client-ca-file={known.certificate('ca')}",
            f"--requestheader-allowed-names={front}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={known.certificate(front)}",
            f"--proxy-client-key-file={known.key(front)}",
            "--profiling=false",
        ]

    def _as_client(self, name: str) -> list[str]:
        path = self.identities.kubeconfig(name)
        return [
            f"--kubeconfig={path}",
            f"--authentication-kubeconfig={path}",
            f"--authorization-kubeconfig={path}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ]

    def _controllers(self) -> list[str]:
        return [
            *self._as_client("controller-manager"),
            f"--service-account-private-key-file={self.identities.key('service-accounts')}",
            f"--root-ca-file={self.identities.certificate('ca')}",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=false",
        ]

    def _scheduler(self) -> list[str]:
        return self._as_client("scheduler")


def _etcd_answers() -> bool:
    try:
        with urllib.request.urlopen(f"{_ETCD}/health", timeout=1):  # noqa: S310
            return True
    except OSError:
        return False
