# SPDX-License-Identifier: Apache-2.0
"""nbdfuse and loop: attach, grow, detach, refuse, clean up after a crash."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from csi_driver.devices import attach as attaching
from csi_driver.devices import loop
from csi_driver.devices import mounts
from csi_driver.devices import stats
from csi_driver.devices import sysfs
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.device import NbdExport
from csi_driver.devices.fuse_loop import FuseLoop
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnavailableError

MIB = 1 << 20
BLKZEROOUT = 0x127F

CACHED_SECONDS = 1.1
"""The kernel tells a file's attributes that long after its FUSE process has died."""

type Serve = Callable[..., Path]
type Attach = Callable[..., Device]


def unused(_: object) -> None:
    raise AssertionError("the fallback hands over no socket")


def test_the_device_has_the_exports_size_and_4096_byte_sectors(device: Device) -> None:
    queue = sysfs.BLOCK / device.path.name / "queue"
    assert device.kind is DeviceKind.FUSE
    assert stats.device_size(device.path) == 512 * MIB
    assert (queue / "logical_block_size").read_text() == "4096\n"


def test_what_is_written_is_read_again_after_detach_and_attach(
    blank: Serve, fuse: FuseLoop, attach: Attach
) -> None:
    path = blank(2048 * MIB)
    first = attach(path)
    content = os.urandom(3 * MIB)
    with first.path.open("r+b", buffering=0) as file:
        file.seek(MIB)
        file.write(content)
        os.fsync(file.fileno())
    fuse.detach(first)
    second = attach(path)
    with second.path.open("rb", buffering=0) as file:
        file.seek(MIB)
        assert file.read(3 * MIB) == content


def test_detach_leaves_nothing_and_can_be_repeated(
    device: Device, fuse: FuseLoop, work_directory: Path
) -> None:
    assert device.process is not None
    fuse.detach(device)
    assert loop.backing_file(device.path.name) is None
    assert list((work_directory / "fuse").glob("*")) == []
    assert device.process.wait_gone(0)
    fuse.detach(device)
    assert fuse.find(device.identity) is None


def test_a_device_is_found_without_stored_state(
    device: Device, fuse: FuseLoop, work_directory: Path
) -> None:
    newcomer = FuseLoop(work_directory / "fuse")
    assert newcomer.find("volume-1") == device
    assert newcomer.find("volume-2") is None
    assert Device.from_json(device.to_json()) == device
    newcomer.detach(Device.from_json(device.to_json()))
    assert fuse.find("volume-1") is None


def test_a_second_attach_of_the_same_volume_is_refused(
    blank: Serve, attach: Attach, fuse: FuseLoop
) -> None:
    path = blank(1024 * MIB)
    attach(path)
    with pytest.raises(InUseError, match="already"):
        attach(path)


def test_read_only_refuses_writes(blank: Serve, attach: Attach) -> None:
    device = attach(blank(1024 * MIB), read_only=True)
    assert sysfs.read_only(device.path.name)
    with (
        pytest.raises(PermissionError),
        device.path.open("r+b", buffering=0) as file,
    ):
        file.write(bytes(4096))


def test_it_grows_up_to_the_ceiling(device: Device, fuse: FuseLoop) -> None:
    fuse.grow(device, 1024 * MIB, lambda: True)
    assert stats.device_size(device.path) == 1024 * MIB
    fuse.grow(device, 1024 * MIB, lambda: False)  # nothing to do
    with pytest.raises(SizeError, match="2147483648"):
        fuse.grow(device, 4096 * MIB, lambda: True)
    with pytest.raises(PreconditionError, match="smaller"):
        fuse.grow(device, 512 * MIB, lambda: True)
    with pytest.raises(ExportLostError):
        fuse.grow(device, 2048 * MIB, lambda: False)
    assert stats.device_size(device.path) == 1024 * MIB


def test_a_foreign_loop_device_is_left_alone(
    device: Device, fuse: FuseLoop, work_directory: Path
) -> None:
    foreign_file = work_directory / "foreign"
    with foreign_file.open("wb") as file:
        file.truncate(64 * MIB)
    foreign = loop.bind(foreign_file, 64 * MIB, read_only=False)
    try:
        lie = Device(foreign, device.kind, device.identity, read_only=False)
        with pytest.raises(PreconditionError, match="left alone"):
            fuse.detach(lie)
        with pytest.raises(PreconditionError, match="left alone"):
            fuse.grow(lie, 128 * MIB, lambda: True)
        assert loop.backing_file(foreign.name) == foreign_file
        assert stats.device_size(foreign) == 64 * MIB
    finally:
        loop.release(foreign)


def test_a_mounted_device_is_not_detached(
    device: Device, fuse: FuseLoop, work_directory: Path
) -> None:
    subprocess.run(["mkfs.ext4", "-q", device.path], check=True)
    target = work_directory / "target"
    mounts.mount_device(device.path, target, "ext4", mounts.MountOptions())
    with pytest.raises(InUseError, match=str(target)):
        fuse.detach(device)
    (target / "still").write_text("writable")


def test_a_device_that_is_kept_open_is_an_error_and_then_goes(
    blank: Serve, work_directory: Path
) -> None:
    method = FuseLoop(work_directory / "fuse", timeout=1)
    export = NbdExport("volume-1", 64 * MIB, False, 1, blank(64 * MIB))
    device = method.attach(export, unused)
    with device.path.open("rb"), pytest.raises(InUseError, match="open"):
        method.detach(device)
    method.detach(device)
    assert method.find("volume-1") is None


def test_a_dead_nbdfuse_is_cleaned_up(
    device: Device, fuse: FuseLoop, work_directory: Path
) -> None:
    assert device.process is not None
    os.kill(device.process.pid, signal.SIGKILL)
    assert device.process.wait_gone(5)
    time.sleep(CACHED_SECONDS)
    assert not fuse.process_alive(device)
    with pytest.raises(ExportLostError):
        fuse.grow(device, 1024 * MIB, lambda: True)
    found = fuse.find("volume-1")
    assert found is not None
    fuse.detach(found)
    assert list((work_directory / "fuse").glob("*")) == []


def test_attach_clears_what_a_crash_left(
    blank: Serve, attach: Attach, fuse: FuseLoop
) -> None:
    path = blank(1024 * MIB)
    first = attach(path)
    assert first.process is not None
    loop.release(first.path)  # a crash between the steps of a detach
    os.kill(first.process.pid, signal.SIGKILL)
    second = attach(path)
    assert stats.device_size(second.path) == 512 * MIB


def test_no_server_is_an_error_that_leaves_nothing(
    fuse: FuseLoop, work_directory: Path
) -> None:
    export = NbdExport("volume-1", MIB, False, 1, work_directory / "no-socket")
    with pytest.raises(UnavailableError, match="No such file"):
        fuse.attach(export, unused)
    assert list((work_directory / "fuse").glob("*")) == []


def test_an_export_smaller_than_the_volume_is_refused(
    blank: Serve, attach: Attach, work_directory: Path
) -> None:
    with pytest.raises(SizeError, match="announces 67108864 bytes"):
        attach(blank(64 * MIB), 128 * MIB)
    assert list((work_directory / "fuse").glob("*")) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (1 | 4 | 8 | 64 | 32, "must not offer .'TRIM'"),
        (1 | 4 | 8, "missing .'WRITE_ZEROES'"),
        (1 | 64, "missing .'FLUSH'"),
        (1 | 2 | 4 | 64, "read-only True"),
    ],
)
def test_an_export_that_nbdfuse_would_damage_is_refused(
    blank: Serve, attach: Attach, work_directory: Path, flags: int, words: str
) -> None:
    with pytest.raises(InternalError, match=words):
        attach(blank(64 * MIB, flags), 64 * MIB)
    assert list((work_directory / "fuse").glob("*")) == []


def test_zeroing_a_range_zeroes_all_of_it(blank: Serve, attach: Attach) -> None:
    """The kernel asks for this when filesystems write zeros."""
    device = attach(blank(64 * MIB), 64 * MIB)
    with device.path.open("r+b", buffering=0) as file:
        file.write(os.urandom(4 * MIB))
        os.fsync(file.fileno())
        fcntl.ioctl(file, BLKZEROOUT, struct.pack("=QQ", MIB, MIB))
        file.seek(0)
        content = file.read(4 * MIB)
    assert content[MIB : 2 * MIB] == bytes(MIB)
    assert bytes(4096) not in content[:MIB] + content[2 * MIB :]


def test_export_names_and_odd_socket_paths(
    fuse: FuseLoop, blank: Serve, work_directory: Path
) -> None:
    odd = work_directory / "a b&c%20?"
    odd.symlink_to(blank(64 * MIB))
    export = NbdExport("volume/1 ü", MIB, False, 1, odd, "pool/name ü")
    device = fuse.attach(export, unused)
    fuse.detach(device)


def test_choose_names_every_reason(work_directory: Path) -> None:
    method = attaching.choose("fuse", directory=work_directory)
    assert method.kind is DeviceKind.FUSE
    assert attaching.choose("auto", directory=work_directory).available() is None
