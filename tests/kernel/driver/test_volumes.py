# SPDX-License-Identifier: Apache-2.0
"""Volumes as real /dev/nbdN: their whole life, and what must not end it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.devices import kernel_nbd
from csi_driver.devices import stats
from csi_driver.devices import sysfs
from csi_driver.devices.device import Device
from csi_driver.devices.device import NbdExport
from csi_driver.devices.kernel_nbd import KernelNbd
from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.client import mount
from tests.ceph.end_to_end.client import reader
from tests.ceph.end_to_end.daemons import Daemon
from tests.ceph.end_to_end.parts import command_line
from tests.ceph.end_to_end.traces import all_pids
from tests.ceph.end_to_end.world import eventually
from tests.ceph.end_to_end.writer import Writer

if TYPE_CHECKING:
    from csi_driver.rpc.stubs import csi_pb2
    from tests.kernel.driver.conftest import Guest

SECRETS = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
SERVER = Path(__file__).parents[2] / "ceph" / "devices" / "disk_server.py"


@pytest.mark.parametrize(("fs", "size"), [("ext4", 128 * MIB), ("xfs", 320 * MIB)])
def test_a_filesystem_from_its_creation_to_its_deletion(
    guest: Guest, fs: str, size: int
) -> None:
    capability = mount(fs)
    volume = guest.create(SECRETS, capability, size)
    target = guest.stage(volume, SECRETS, capability)
    device = guest.device(volume)
    assert device is not None
    assert stats.device_size(device) == size
    with Writer(target) as writer:
        writer.progress(10, 120)
    guest.unstage(volume)
    assert guest.device(volume) is None
    assert stats.device_size(device) == 0

    target = guest.stage(volume, SECRETS, capability)
    assert not writer.lost(target)
    before = guest.node.total_bytes(volume, target)
    guest.controller.expand(volume, 2 * size, SECRETS)
    with Writer(target) as during:
        during.progress(2, 120)
        assert guest.node.expand(volume, target, 2 * size) == 2 * size
        during.progress(2, 120)
    assert guest.node.total_bytes(volume, target) > 1.9 * before
    guest.unstage(volume)

    target = guest.stage(volume, SECRETS, capability, read_only=True)
    assert not during.lost(target)
    with pytest.raises(OSError, match="Read-only file system"):
        (target / "another").write_bytes(b"x")
    guest.unstage(volume)


def test_a_block_volume(guest: Guest) -> None:
    volume = guest.create(SECRETS, block())
    target = guest.stage(volume, SECRETS, block())
    content = os.urandom(MIB)
    assert target.is_block_device()
    with target.open("r+b", buffering=0) as device:
        device.seek(63 * MIB)
        device.write(content)
        os.fsync(device.fileno())
    guest.controller.expand(volume, 128 * MIB, SECRETS)
    assert guest.node.expand(volume, target, 128 * MIB) == 128 * MIB
    assert guest.node.total_bytes(volume, target) == 128 * MIB
    guest.unstage(volume)

    target = guest.stage(volume, SECRETS, block())
    with target.open("rb", buffering=0) as device:
        device.seek(63 * MIB)
        assert device.read(MIB) == content
    guest.unstage(volume)


def test_a_read_only_stage_is_a_read_only_device(guest: Guest) -> None:
    volume = guest.create(SECRETS, mount())
    guest.stage(volume, SECRETS, mount())
    guest.unstage(volume)
    guest.stage(volume, SECRETS, reader())
    device = guest.device(volume)
    assert device is not None
    assert sysfs.read_only(device.name)
    guest.unstage(volume)


def test_io_outlives_the_node_service_and_a_hanging_disk(guest: Guest) -> None:
    volume = guest.create(SECRETS, mount())
    target = guest.stage(volume, SECRETS, mount())
    device = guest.device(volume)
    with Writer(target) as writer:
        writer.progress(5, 120)
        guest.restart("node", kill=True)
        writer.progress(5, 120)
        with Daemon("osd").stopped():
            time.sleep(8)  # more than the device's own timeout, several times
        writer.progress(5, 120)
    assert guest.device(volume) == device
    guest.unstage(volume)
    target = guest.stage(volume, SECRETS, mount())
    assert writer.failure is None
    assert not writer.lost(target)
    guest.unstage(volume)


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Device]:
    """Give an nbd device that is somebody else's, with data on it."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"somebody else's".ljust(MIB, b"\0"))
    processes: list[subprocess.Popen[bytes]] = []

    def serve(server: socket.socket) -> None:
        with server:
            number = server.fileno()
            words = [sys.executable, str(SERVER), str(disk), "5", "fd", str(number)]
            processes.append(subprocess.Popen(words, pass_fds=[number]))

    method = KernelNbd()
    device = method.attach(NbdExport("somebody-elses", MIB, False, 5), serve)
    yield device
    method.detach(device)
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_a_killed_datapath_ends_in_errors_and_stages_anew(
    guest: Guest, foreign: Device, fs: str
) -> None:
    capability = mount(fs)
    volume = guest.create(SECRETS, capability, 320 * MIB)
    target = guest.stage(volume, SECRETS, capability)
    with Writer(target) as writer:
        writer.progress(10, 120)
        begin = time.monotonic()
        guest.restart("datapath", kill=True)
        failure = writer.refused_within(60)
        assert writer.failed_at - begin < 60
        assert failure.errno in {errno.EIO, errno.EROFS}, failure
    guest.unstage(volume)
    assert guest.device(volume) is None
    target = guest.stage(volume, SECRETS, capability)
    assert not writer.lost(target)
    guest.unstage(volume)
    assert kernel_nbd.backend(foreign.path.name) == "somebody-elses"
    with foreign.path.open("rb") as device:
        assert device.read(15) == b"somebody else's"


def worker_of(volume: csi_pb2.Volume) -> int:
    """Return the one worker that serves; the spare has no threads of librbd's."""
    workers = [
        pid
        for pid in all_pids()
        if "csi_driver.datapath.worker" in command_line(pid)
        and len(list(Path(f"/proc/{pid}/task").iterdir())) > 4
    ]
    assert len(workers) == 1, f"one worker for {volume.volume_id}"
    return workers[0]


def test_even_a_core_limit_from_outside_gets_no_core_file(
    guest: Guest, tmp_path: Path
) -> None:
    """The process is not dumpable, whatever its limits and the core pattern say."""
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text()
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    volume = guest.create(SECRETS, block())
    guest.stage(volume, SECRETS, block())
    worker = worker_of(volume)
    try:
        pattern.write_text(f"{tmp_path}/core.%p")
        ordinary = subprocess.Popen(["sleep", "60"])
        for pid in (ordinary.pid, worker):
            resource.prlimit(pid, resource.RLIMIT_CORE, unlimited)
            os.kill(pid, signal.SIGSEGV)
        ordinary.wait()
        eventually("the worker's end", lambda: worker not in all_pids(), 30)
        time.sleep(1)
        assert [path.name for path in tmp_path.iterdir()] == [f"core.{ordinary.pid}"]
    finally:
        pattern.write_text(before)
    guest.unstage(volume)
