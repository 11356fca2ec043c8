# SPDX-License-Identifier: Apache-2.0
"""The lab's own driver in a guest whose kernel has nbd, by its sockets alone.

Runs inside user-mode-linux; root has every capability there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.datapath.client import Datapath
from csi_driver.devices import kernel_nbd
from csi_driver.rpc.stubs import csi_pb2
from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import Controller
from tests.ceph.end_to_end.client import Node
from tests.ceph.end_to_end.client import Secrets
from tests.ceph.end_to_end.world import unmount_below

_LAB = Path(__file__).parents[3] / "hack" / "lab"


class Guest:
    """The driver's services, and the paths and volumes of one test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.controller = Controller(
            os.environ["CSI_CONTROLLER_ENDPOINT"], {"clusterID": "lab", "pool": "rbd"}
        )
        self.node = Node(os.environ["CSI_NODE_ENDPOINT"])
        run = Path(os.environ["RBDCRYPT_RUN_DIR"])
        self.datapath = Datapath(run / "datapath.sock")
        self._made: list[csi_pb2.Volume] = []

    def create(
        self,
        secrets: Secrets,
        capability: csi_pb2.VolumeCapability,
        size: int = 64 * MIB,
    ) -> csi_pb2.Volume:
        name = f"guest-{time.monotonic_ns()}"
        volume = self.controller.create(name, secrets, size=size, capability=capability)
        self._made.append(volume)
        return volume

    def clone(
        self,
        secrets: Secrets,
        source: csi_pb2.Volume,
        capability: csi_pb2.VolumeCapability,
        size: int,
    ) -> csi_pb2.Volume:
        name = f"guest-{time.monotonic_ns()}"
        volume = self.controller.clone(
            name, secrets, source, size=size, capability=capability
        )
        self._made.append(volume)
        return volume

    def staging(self, volume: csi_pb2.Volume) -> Path:
        return self.directory / "staging" / volume.volume_id[-8:]

    def target(self, volume: csi_pb2.Volume) -> Path:
        return self.directory / "pods" / volume.volume_id[-8:]

    def stage(
        self,
        volume: csi_pb2.Volume,
        secrets: Secrets,
        capability: csi_pb2.VolumeCapability,
        *,
        read_only: bool = False,
    ) -> Path:
        """Stage and publish; return the target path."""
        staging, target = self.staging(volume), self.target(volume)
        self.node.stage(volume, staging, secrets, capability)
        self.node.publish(volume, staging, target, capability, read_only=read_only)
        return target

    def unstage(self, volume: csi_pb2.Volume) -> None:
        """Unpublish and unstage."""
        self.node.unpublish(volume, self.target(volume))
        self.node.unstage(volume, self.staging(volume))

    def device(self, volume: csi_pb2.Volume) -> Path | None:
        """Return the nbd device whose backend identifier is the volume's id."""
        for block in sorted(Path("/sys/block").glob("nbd*")):
            if kernel_nbd.backend(block.name) == volume.volume_id:
                return Path("/dev") / block.name
        return None

    def restart(self, part: str, *, kill: bool = False) -> None:
        """Replace one part of the driver, as a newcomer would."""
        words = [str(_LAB), "restart", part, *(["--kill"] if kill else [])]
        subprocess.run(words, check=True, timeout=300)

    def close(self) -> None:
        """Take everything away, from wherever the test stopped."""
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, self.directory)
            undo.callback(self.node.close)
            undo.callback(self.controller.close)
            for volume in self._made:
                undo.callback(self.controller.delete, volume)
                undo.callback(self.node.unstage, volume, self.staging(volume))
                undo.callback(self.node.unpublish, volume, self.target(volume))
            unmount_below(self.directory)


@pytest.fixture
def guest() -> Iterator[Guest]:
    if not Path("/sys/block/nbd0").exists():
        pytest.fail("no nbd in this kernel: run this through `hack/test kernel`")
    found = Guest(Path(tempfile.mkdtemp(prefix="guest-")))
    yield found
    found.close()
