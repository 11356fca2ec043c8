# SPDX-License-Identifier: Apache-2.0
"""containerd, and the images in it."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

from labtools import processes
from labtools import shell

from clustertools import images
from clustertools import network
from clustertools import nodes
from clustertools.controlplane import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labtools.places import Lab

SOCKET: Final = Path("/run/containerd/containerd.sock")

# restrict_oom_score_adj: root may lack CAP_SYS_RESOURCE, and without it no sandbox
# could be given the score that kubelet wants.
_CONFIG: Final = """\
version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{networks}"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Runtime:
    """One containerd; its images and containers are in the lab's data."""

    lab: Lab

    def up(self) -> None:
        """Start it and wait until it answers."""
        # Mounts that a pod makes for kubelet have to be seen by all.
        shell.run("mount", "--make-rshared", "/")
        networks = Path("/etc/cni/net.d")
        network.write_pod_network(nodes.node_of(self.lab), networks, Path("/run/cni"))
        config = self.lab.etc / "containerd.toml"
        config.write_text(
            _CONFIG.format(
                root=self.lab.data / "containerd",
                socket=SOCKET,
                pause=images.PAUSE,
                plugins=network.CNI_PLUGINS,
                networks=networks,
            )
        )
        log = self.lab.log / "containerd.log"
        command = ("containerd", "--config", config)
        pid_file = self.lab.run / "pids/containerd"
        process = processes.start(command, pid_file, log)
        wait_until("containerd", self._answers, process, log, 30)

    def load(self, archives: Iterable[str]) -> None:
        """Import images from archives that `podman save` or `docker save` made."""
        for archive in archives:
            shell.run(*self._ctr("images", "import", "--local", archive))

    def _answers(self) -> bool:
        command = [str(word) for word in self._ctr("version")]
        done = subprocess.run(command, capture_output=True, check=False)
        return done.returncode == 0

    def _ctr(self, *words: str | Path) -> tuple[str | Path, ...]:
        return ("ctr", "--address", SOCKET, "--namespace", "k8s.io", *words)
