# SPDX-License-Identifier: Apache-2.0
"""Real exports and real devices by nbdfuse and loop, as root.

Nothing of Ceph is needed here: what serves the export makes no difference to
the device.  Every fixture takes away what it made, whatever the test did.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from pathlib import Path

import pytest

from csi_driver.devices import mounts
from csi_driver.devices.device import Device
from csi_driver.devices.device import NbdExport
from csi_driver.devices.fuse_loop import FuseLoop

MIB = 1 << 20
# Has flags, FLUSH, FUA, WRITE_ZEROES, several connections: as the driver serves.
FLAGS = 1 | 4 | 8 | 64 | 256
SERVER = Path(__file__).with_name("disk_server.py")

type Serve = Callable[..., Path]
type Attach = Callable[..., Device]


@contextmanager
def serving(file: Path, flags: int, **environment: str) -> Iterator[Path]:
    """Serve a file on a unix socket until the block ends."""
    directory = Path(tempfile.mkdtemp(prefix="export-"))
    path = directory / "socket"
    server = subprocess.Popen(
        [sys.executable, SERVER, file, str(flags), "unix", path],
        env=os.environ | environment,
    )
    try:
        deadline = time.monotonic() + 10
        while not path.exists():
            assert server.poll() is None, "the server ended at its start"
            assert time.monotonic() < deadline, "the server made no socket in 10 s"
            time.sleep(0.01)
        yield path
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(directory)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a given file and return the socket's path."""
    with ExitStack() as stack:

        def call(file: Path, flags: int = FLAGS, **environment: str) -> Path:
            return stack.enter_context(serving(file, flags, **environment))

        yield call


@pytest.fixture
def work_directory() -> Iterator[Path]:
    """Give an empty directory; everything mounted below it is unmounted."""
    directory = Path(tempfile.mkdtemp(prefix="devices-"))
    try:
        yield directory
    finally:
        below = [
            Path(mount.mount_point)
            for mount in mounts.read_mounts()
            if mount.mount_point.startswith(f"{directory}/")
        ]
        for path in reversed(below):
            mounts.unmount_once(path)
        shutil.rmtree(directory)


@pytest.fixture
def blank(serve: Serve, work_directory: Path) -> Serve:
    """Serve a number of bytes, all zero at first."""

    def call(size: int, flags: int = FLAGS, **environment: str) -> Path:
        handle, name = tempfile.mkstemp(dir=work_directory)
        os.ftruncate(handle, size)
        os.close(handle)
        return serve(Path(name), flags, **environment)

    return call


@pytest.fixture
def fuse(work_directory: Path) -> FuseLoop:
    """Give the fallback method, with its mount points in the work directory."""
    method = FuseLoop(work_directory / "fuse")
    reason = method.available()
    if reason is not None:
        pytest.fail(f"{reason}: run this through `hack/test ceph`, as root")
    return method


def refuse_socket(server: socket.socket) -> None:
    server.close()
    pytest.fail("the fallback hands over no socket")


@pytest.fixture
def attach(fuse: FuseLoop) -> Iterator[Attach]:
    """Attach an export by the fallback; detached at the end."""
    attached: list[Device] = []

    def call(
        path: Path,
        size: int = 512 * MIB,
        *,
        identity: str = "volume-1",
        read_only: bool = False,
    ) -> Device:
        export = NbdExport(identity, size, read_only, FLAGS, path)
        device = fuse.attach(export, refuse_socket)
        attached.append(device)
        return device

    yield call
    for device in reversed(attached):
        numbers = mounts.device_numbers(device.path)
        for mount in mounts.of_device(mounts.read_mounts(), numbers):
            mounts.unmount(Path(mount.mount_point))
        fuse.detach(device)


@pytest.fixture
def device(blank: Serve, attach: Attach) -> Device:
    """Give a writable device of 512 MiB under a ceiling of 2 GiB."""
    return attach(blank(2048 * MIB))
