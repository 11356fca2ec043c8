# SPDX-License-Identifier: Apache-2.0
"""Real /dev/nbdN, served by a small server process over a socketpair.

Runs inside user-mode-linux with nbd.ko, as root with every capability.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.devices import mounts
from csi_driver.devices.device import Device
from csi_driver.devices.device import NbdExport
from csi_driver.devices.kernel_nbd import KernelNbd

MIB = 1 << 20
FLAGS = 1 | 4 | 8
READ_ONLY_FLAG = 2
SERVER = Path(__file__).parents[2] / "ceph" / "devices" / "disk_server.py"

type Attach = Callable[..., Device]


class Servers:
    """Server processes on one file, the last one being the device's."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "disk"
        self.processes: list[subprocess.Popen[bytes]] = []

    def truncate(self, size: int) -> None:
        with self.file.open("ab") as file:
            file.truncate(size)

    def take(self, server: socket.socket) -> None:
        """Start a server on the socket that `attach` gives away."""
        with server:
            number = server.fileno()
            arguments = [sys.executable, str(SERVER), str(self.file), str(FLAGS), "fd"]
            process = subprocess.Popen([*arguments, str(number)], pass_fds=[number])
        self.processes.append(process)

    def kill(self) -> None:
        self.processes[-1].kill()
        self.processes[-1].wait()

    def alive(self) -> bool:
        return self.processes[-1].poll() is None


@pytest.fixture
def work_directory() -> Iterator[Path]:
    """Give an empty directory; everything mounted below it is unmounted."""
    directory = Path(tempfile.mkdtemp(prefix="devices-"))
    yield directory
    below = [
        Path(mount.mount_point)
        for mount in mounts.read_mounts()
        if mount.mount_point.startswith(f"{directory}/")
    ]
    for path in reversed(below):
        mounts.unmount_once(path)
    shutil.rmtree(directory)


@pytest.fixture
def servers(work_directory: Path) -> Iterator[Servers]:
    """Give the servers of one device; ended after it is detached."""
    found = Servers(work_directory)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


@pytest.fixture
def kernel() -> KernelNbd:
    """Give the kernel's method; without nbd the test fails."""
    method = KernelNbd(dead_connection_seconds=60, timeout=5)
    reason = method.available()
    if reason is not None:
        pytest.fail(f"{reason}: run this through `hack/test kernel`")
    return method


@pytest.fixture
def attach(kernel: KernelNbd, servers: Servers) -> Iterator[Attach]:
    """Attach a device of a given size; detached at the end."""
    attached: list[Device] = []

    def call(
        size: int = 128 * MIB, *, identity: str = "volume-1", read_only: bool = False
    ) -> Device:
        servers.truncate(size)
        flags = FLAGS | (READ_ONLY_FLAG if read_only else 0)
        export = NbdExport(identity, size, read_only, flags)
        device = kernel.attach(export, servers.take)
        attached.append(device)
        return device

    yield call
    for device in reversed(attached):
        numbers = mounts.device_numbers(device.path)
        for mount in mounts.of_device(mounts.read_mounts(), numbers):
            mounts.unmount(Path(mount.mount_point))
        # A test may have killed the server, and opening the device would wait for it.
        kernel.detach(device, served=False)


@pytest.fixture
def device(attach: Attach) -> Device:
    """Give a writable device of 128 MiB."""
    return attach()
