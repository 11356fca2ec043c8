# SPDX-License-Identifier: Apache-2.0
"""The kernel's NBD client, driven by netlink, with everything that can happen."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from csi_driver.devices import attach as attaching
from csi_driver.devices import filesystems
from csi_driver.devices import kernel_nbd
from csi_driver.devices import mounts
from csi_driver.devices import stats
from csi_driver.devices import sysfs
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.device import NbdExport
from csi_driver.devices.genetlink import NetlinkError
from csi_driver.devices.kernel_nbd import KernelNbd
from csi_driver.devices.netlink import Connect
from csi_driver.devices.netlink import NbdControl
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError

MIB = 1 << 20

type Attach = Callable[..., Device]


class Servers(Protocol):
    """What the fixture of that name offers."""

    file: Path

    def take(self, server: socket.socket) -> None: ...
    def truncate(self, size: int) -> None: ...
    def kill(self) -> None: ...
    def alive(self) -> bool: ...


def queue(device: Device, name: str) -> str:
    return (sysfs.BLOCK / device.path.name / "queue" / name).read_text().strip()


def read(device: Device, offset: int, length: int) -> bytes:
    """Read past the page cache."""
    descriptor = os.open(device.path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def write(device: Device, offset: int, content: bytes) -> None:
    descriptor = os.open(device.path, os.O_RDWR | os.O_SYNC)
    try:
        os.pwrite(descriptor, content, offset)
    finally:
        os.close(descriptor)


def test_auto_chooses_the_kernel(work_directory: Path) -> None:
    method = attaching.choose("auto", directory=work_directory)
    assert method.kind is DeviceKind.KERNEL


def test_the_device_is_what_was_asked_for(device: Device, kernel: KernelNbd) -> None:
    assert device.kind is DeviceKind.KERNEL
    assert stats.device_size(device.path) == 128 * MIB
    assert queue(device, "logical_block_size") == "4096"
    assert queue(device, "io_timeout") == "1000"
    assert kernel_nbd.backend(device.path.name) == "volume-1"
    assert NbdControl().status()[int(device.path.name[3:])]
    assert kernel.find("volume-1") == device
    assert kernel.find("volume-2") is None
    assert Device.from_json(device.to_json()) == device


def test_what_is_written_reaches_the_server(device: Device, servers: Servers) -> None:
    content = os.urandom(3 * MIB)
    write(device, MIB, content)
    assert servers.file.read_bytes()[MIB : 4 * MIB] == content
    assert read(device, MIB, 3 * MIB) == content


def test_detach_ends_the_server_and_can_be_repeated(
    device: Device, kernel: KernelNbd, servers: Servers
) -> None:
    kernel.detach(device)
    assert sysfs.size(device.path.name) == 0
    assert not kernel_nbd.is_connected(device.path.name)
    assert sysfs.wait_until(lambda: not servers.alive(), 5)
    kernel.detach(device)
    assert kernel.find("volume-1") is None


def test_a_device_can_be_used_again_by_another_volume(
    device: Device, kernel: KernelNbd, attach: Attach
) -> None:
    kernel.detach(device)
    second = attach(64 * MIB, identity="volume-2")
    assert stats.device_size(second.path) == 64 * MIB
    with pytest.raises(PreconditionError, match="volume-2"):
        kernel.detach(Device(second.path, device.kind, "volume-1", read_only=False))
    assert kernel.find("volume-2") == second


def test_a_second_attach_is_refused(device: Device, attach: Attach) -> None:
    with pytest.raises(InUseError, match="already"):
        attach()


def test_read_only(attach: Attach) -> None:
    device = attach(read_only=True)
    assert sysfs.read_only(device.path.name)
    with pytest.raises(PermissionError):
        write(device, 0, bytes(4096))


def test_flags_that_disagree_leave_nothing(kernel: KernelNbd, servers: Servers) -> None:
    servers.truncate(MIB)
    with pytest.raises(InternalError, match="read-only"):
        kernel.attach(NbdExport("volume-1", MIB, True, 1), servers.take)
    assert kernel.find("volume-1") is None
    assert sysfs.wait_until(lambda: not servers.alive(), 5)


def test_a_server_that_cannot_start_leaves_nothing(kernel: KernelNbd) -> None:
    ends: list[socket.socket] = []

    def refuse(server: socket.socket) -> None:
        ends.append(server)
        raise PreconditionError("no server today")

    with pytest.raises(PreconditionError, match="no server today"):
        kernel.attach(NbdExport("volume-1", MIB, False, 1), refuse)
    assert ends[0].fileno() == -1
    assert kernel.find("volume-1") is None


def test_the_kernels_refusals_are_readable(device: Device) -> None:
    index = int(device.path.name[3:])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = Connect(MIB, 1, "volume-2", ours.fileno(), 1, index)
        with pytest.raises(NetlinkError, match="EBUSY") as busy:
            NbdControl().connect(request)
        with pytest.raises(NetlinkError) as stranger:
            NbdControl().reattach(index, "volume-2", ours.fileno())
    assert busy.value.errno == errno.EBUSY
    assert stranger.value.errno == errno.EINVAL


def test_it_grows_only_with_a_live_server(
    device: Device, kernel: KernelNbd, servers: Servers
) -> None:
    servers.truncate(256 * MIB)
    with pytest.raises(ExportLostError):
        kernel.grow(device, 256 * MIB, lambda: False)
    kernel.grow(device, 256 * MIB, servers.alive)
    assert stats.device_size(device.path) == 256 * MIB
    assert queue(device, "io_timeout") == "1000"
    kernel.grow(device, 256 * MIB, lambda: False)  # nothing to do
    with pytest.raises(PreconditionError, match="smaller"):
        kernel.grow(device, 128 * MIB, servers.alive)
    content = os.urandom(MIB)
    write(device, 255 * MIB, content)
    assert read(device, 255 * MIB, MIB) == content


def test_a_dead_server_is_replaced_without_an_error(
    device: Device, kernel: KernelNbd, servers: Servers
) -> None:
    content = os.urandom(MIB)
    write(device, 0, content)
    servers.kill()
    reader = subprocess.Popen(
        ["dd", f"if={device.path}", "bs=1M", "count=1", "iflag=direct", "status=none"],
        stdout=subprocess.PIPE,
    )
    time.sleep(0.5)
    assert reader.poll() is None, "the request should wait for a server"
    kernel.reattach(device, servers.take)
    output, _ = reader.communicate(timeout=20)
    assert (reader.returncode, output) == (0, content)
    assert servers.alive()


def test_a_device_without_server_goes_and_its_requests_fail(
    device: Device, kernel: KernelNbd, servers: Servers
) -> None:
    servers.kill()
    reader = subprocess.Popen(
        ["dd", f"if={device.path}", "bs=4k", "count=1", "iflag=direct"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    time.sleep(0.5)
    try:
        kernel.detach(device, served=False)
    except InUseError:  # dd had it open until its request failed
        kernel.detach(device, served=False)
    _, errors = reader.communicate(timeout=20)
    assert reader.returncode == 1
    assert b"Input/output error" in errors
    assert kernel.find("volume-1") is None


def test_a_device_that_is_kept_open_goes_at_the_last_close(
    attach: Attach, servers: Servers
) -> None:
    device = attach()
    impatient = KernelNbd(timeout=1)
    with device.path.open("rb"), pytest.raises(InUseError, match="keeps it open"):
        impatient.detach(device)
    impatient.detach(device)
    assert not kernel_nbd.is_connected(device.path.name)


def test_a_dead_device_that_is_shown_keeps_its_name(
    attach: Attach, kernel: KernelNbd, servers: Servers, work_directory: Path
) -> None:
    """Or the pod that sees it would see the next volume's bytes."""
    device = attach()
    with device.path.open("rb"):  # the kernel looks for partitions now, not later
        pass
    shown = work_directory / "shown"
    mounts.bind_device(device.path, shown)
    with pytest.raises(InUseError, match="is mounted on"):
        kernel.detach(device)
    servers.kill()
    kernel.cut_off(device)
    other = attach(identity="volume-2")
    write(other, 0, b"secret".ljust(4096))
    assert other.path != device.path
    with pytest.raises(OSError, match="error"), shown.open("rb", buffering=0) as file:
        assert file.read(4096) == b"an error"
    mounts.unmount(shown)
    kernel.detach(device)
    assert not kernel_nbd.is_connected(device.path.name)


def test_a_mount_that_is_not_seen_here_keeps_the_device(
    attach: Attach, work_directory: Path
) -> None:
    """As a lazily detached mount, or one in a container, it is in no list."""
    device = attach()
    filesystems.make(device.path, "ext4")
    place = work_directory / "elsewhere"
    place.mkdir()
    script = (
        'mount "$0" "$1" && echo mounted && read -r go && echo kept > "$1/file" &&'
        ' sync --file-system "$1" && cat "$1/file" && read -r go; umount "$1"'
    )
    hidden = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, str(device.path), str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert hidden.stdin is not None
    assert hidden.stdout is not None
    try:
        assert hidden.stdout.readline() == "mounted\n"
        assert not mounts.at(mounts.read_mounts(), place)
        impatient = KernelNbd(timeout=1)
        with pytest.raises(InUseError, match="namespace"):
            impatient.detach(device)
        print("go", file=hidden.stdin, flush=True)
        assert hidden.stdout.readline() == "kept\n", "its I/O goes on"
    finally:
        hidden.communicate("go\n", timeout=20)
    assert hidden.returncode == 0
    impatient.detach(device)
    assert not kernel_nbd.is_connected(device.path.name)


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_filesystem_lives_on_it_and_grows_mounted(
    attach: Attach,
    kernel: KernelNbd,
    servers: Servers,
    work_directory: Path,
    filesystem: str,
) -> None:
    device = attach(512 * MIB)
    filesystems.make(device.path, filesystem)
    target = work_directory / "target"
    options = mounts.MountOptions()
    mounts.mount_device(device.path, target, filesystem, options)
    (target / "file").write_bytes(content := os.urandom(8 * MIB))
    with pytest.raises(InUseError, match=str(target)):
        kernel.detach(device)
    servers.truncate(1024 * MIB)
    kernel.grow(device, 1024 * MIB, servers.alive)
    assert filesystems.can_grow_ext4_mounted()
    assert filesystems.grow_mounted(device.path, filesystem, target)
    assert stats.filesystem_usage(target).total_bytes > 900 * MIB
    mounts.unmount(target)
    filesystems.check(device.path, filesystem)
    kernel.detach(device)
    again = attach(1024 * MIB)
    mounts.mount_device(again.path, target, filesystem, options)
    assert (target / "file").read_bytes() == content
