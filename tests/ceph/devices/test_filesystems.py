# SPDX-License-Identifier: Apache-2.0
"""Filesystems made, checked and grown by the real tools on real devices."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from csi_driver.devices import filesystems
from csi_driver.devices import loop
from csi_driver.devices import mounts
from csi_driver.devices import stats
from csi_driver.devices.device import Device
from csi_driver.devices.fuse_loop import FuseLoop
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError

MIB = 1 << 20

type Serve = Callable[..., Path]
type Attach = Callable[..., Device]

BOTH = pytest.mark.parametrize("filesystem", ["ext4", "xfs"])


def mounted(device: Device, filesystem: str, target: Path) -> Path:
    mounts.mount_device(device.path, target, filesystem, mounts.MountOptions())
    return target


def verify(device: Device, filesystem: str) -> None:
    """Check every structure, changing nothing."""
    tools = {"ext4": ["e2fsck", "-f", "-n"], "xfs": ["xfs_repair", "-n"]}
    subprocess.run([*tools[filesystem], device.path], check=True, capture_output=True)


@BOTH
def test_a_fresh_device_has_nothing_and_then_what_was_made(
    device: Device, filesystem: str
) -> None:
    assert filesystems.probe(device.path) is None
    made = filesystems.make(device.path, filesystem)
    assert made == filesystems.probe(device.path)
    assert made.kind == filesystem
    found = filesystems.read_superblock(device.path)
    assert (found.filesystem, str(found.uuid)) == (filesystem, made.uuid)
    assert found.fills(512 * MIB)
    verify(device, filesystem)


@BOTH
def test_no_filesystem_is_made_over_another_unless_it_was_cut_short(
    device: Device, filesystem: str
) -> None:
    first = filesystems.make(device.path, "ext4")
    with pytest.raises(PreconditionError, match="holds ext4"):
        filesystems.make(device.path, filesystem)
    assert filesystems.probe(device.path) == first
    again = filesystems.make(device.path, filesystem, overwrite=True)
    assert again.uuid != first.uuid
    verify(device, filesystem)


@BOTH
def test_nothing_is_discarded(filesystem: str, work_directory: Path) -> None:
    """A discard on a loop device punches holes into its file."""
    file = work_directory / "file"
    with file.open("wb") as handle:
        for _ in range(320):
            handle.write(os.urandom(MIB))
    before = file.stat().st_blocks
    device = loop.bind(file, 320 * MIB, read_only=False)
    try:
        options = "-E stride=4" if filesystem == "ext4" else ""
        filesystems.make(device, filesystem, options)
    finally:
        loop.release(device)
    assert file.stat().st_blocks >= before


@BOTH
def test_it_works_on_a_device_full_of_noise(
    serve: Serve, attach: Attach, filesystem: str, work_directory: Path
) -> None:
    """Blocks never written read as noise there, as they may behind librbd."""
    noise = work_directory / "noise"
    with noise.open("wb") as handle:
        for _ in range(512):
            handle.write(os.urandom(MIB))
    device = attach(serve(noise))
    filesystems.make(device.path, filesystem)
    target = work_directory / "target"
    for attempt in range(2):
        mounted(device, filesystem, target)
        for number in range(2000):
            (target / f"{attempt}-{number}").write_text("x" * number)
        mounts.unmount(target)
        filesystems.check(device.path, filesystem)
        verify(device, filesystem)


def test_user_options_reach_mkfs(device: Device) -> None:
    filesystems.make(device.path, "ext4", "-L 'a label' -E stride=8 -m 3")
    text = subprocess.run(
        ["dumpe2fs", "-h", device.path], check=True, capture_output=True, text=True
    ).stdout
    assert "a label" in text
    assert "RAID stride:              8" in text
    with pytest.raises(InvalidRequestError):
        filesystems.make(device.path, "ext4", "-E discard", overwrite=True)


def test_a_refusal_of_mkfs_is_an_error_with_its_words(
    blank: Serve, attach: Attach
) -> None:
    device = attach(blank(64 * MIB), 64 * MIB)
    with pytest.raises(PreconditionError, match=r"mkfs\.xfs.*300"):
        filesystems.make(device.path, "xfs")


def test_two_signatures_are_an_error(device: Device, work_directory: Path) -> None:
    """An xfs superblock of 512 bytes leaves room for ext4's at byte 1024."""
    file = work_directory / "file"
    with file.open("wb") as handle:
        handle.truncate(512 * MIB)
    subprocess.run(["mkfs.xfs", "-q", file], check=True)
    filesystems.make(device.path, "ext4")
    with file.open("rb") as xfs, device.path.open("r+b", buffering=0) as both:
        both.write(xfs.read(512))
    with pytest.raises(PreconditionError, match="ext4, xfs"):
        filesystems.probe(device.path)
    with pytest.raises(PreconditionError, match="ext4, xfs"):
        filesystems.make(device.path, "ext4")


def test_a_partition_table_is_a_signature(device: Device) -> None:
    table = bytearray(512)
    table[446:462] = bytes.fromhex("00000200 83ffffff 00080000 00400000")
    table[510:] = b"\x55\xaa"
    with device.path.open("r+b", buffering=0) as file:
        file.write(table)
    found = filesystems.probe(device.path)
    assert found is not None
    assert (found.kind, found.partition_table) == (None, "dos")
    with pytest.raises(PreconditionError, match="partition table"):
        filesystems.make(device.path, "ext4")


def test_a_device_that_cannot_be_read_is_not_an_empty_one(
    blank: Serve, attach: Attach
) -> None:
    device = attach(blank(512 * MIB, FAIL_READS="yes"))
    with pytest.raises(PreconditionError, match="cannot be read"):
        filesystems.probe(device.path)
    with pytest.raises(PreconditionError, match="cannot be read"):
        filesystems.make(device.path, "ext4")


def test_a_damaged_ext4_is_reported_and_not_repaired(device: Device) -> None:
    filesystems.make(device.path, "ext4")
    filesystems.check(device.path, "ext4")
    for command in ("set_inode_field <2> mode 0", "set_super_value state 2"):
        subprocess.run(
            ["debugfs", "-w", "-R", command, device.path],
            check=True,
            capture_output=True,
        )
    with pytest.raises(PreconditionError, match=r"exit code 4.*by hand"):
        filesystems.check(device.path, "ext4")
    with pytest.raises(subprocess.CalledProcessError):
        verify(device, "ext4")


@BOTH
def test_it_grows_and_keeps_its_data(
    device: Device, fuse: FuseLoop, filesystem: str, work_directory: Path
) -> None:
    """Xfs grows mounted; ext4 too with CAP_SYS_RESOURCE, else unmounted."""
    filesystems.make(device.path, filesystem)
    target = mounted(device, filesystem, work_directory / "target")
    content = os.urandom(20 * MIB)
    (target / "file").write_bytes(content)
    assert not filesystems.grow_mounted(device.path, filesystem, target)
    fuse.grow(device, 1536 * MIB, lambda: True)
    if filesystem == "xfs" or filesystems.can_grow_ext4_mounted():
        assert filesystems.grow_mounted(device.path, filesystem, target)
        assert not filesystems.grow_mounted(device.path, filesystem, target)
    else:
        with pytest.raises(PreconditionError, match="CAP_SYS_RESOURCE"):
            filesystems.grow_mounted(device.path, filesystem, target)
        mounts.unmount(target)
        assert filesystems.grow_unmounted(device.path, filesystem)
        assert not filesystems.grow_unmounted(device.path, filesystem)
        mounted(device, filesystem, target)
    usage = stats.filesystem_usage(target)
    assert 1400 * MIB < usage.total_bytes <= 1536 * MIB
    assert usage.used_bytes >= len(content)
    assert usage.available_bytes <= usage.total_bytes - usage.used_bytes
    assert usage.total_inodes == usage.used_inodes + usage.available_inodes
    (target / "more").write_bytes(bytes(600 * MIB))
    mounts.unmount(target)
    assert not filesystems.grow_unmounted(device.path, filesystem)
    mounted(device, filesystem, target)
    assert (target / "file").read_bytes() == content
    mounts.unmount(target)
    verify(device, filesystem)


@pytest.mark.parametrize("tail", [0, 4096, 64 * 4096, 2 * MIB, 4 * MIB])
def test_an_ext4_that_fills_its_device_is_not_grown_at_every_stage(
    blank: Serve, attach: Attach, tail: int
) -> None:
    """The tail behind the last whole group may be too small for another one."""
    device = attach(blank(1024 * MIB), 256 * MIB + tail)
    filesystems.make(device.path, "ext4")
    assert not filesystems.grow_unmounted(device.path, "ext4")


@pytest.mark.parametrize("tail", [4096, 2 * MIB, 4 * MIB, 16 * MIB, 128 * MIB])
def test_growing_ext4_once_is_enough(
    blank: Serve, attach: Attach, fuse: FuseLoop, tail: int
) -> None:
    device = attach(blank(1024 * MIB), 256 * MIB)
    filesystems.make(device.path, "ext4")
    fuse.grow(device, 256 * MIB + tail, lambda: True)
    grew = filesystems.grow_unmounted(device.path, "ext4")
    assert grew or tail < 16 * MIB
    assert not filesystems.grow_unmounted(device.path, "ext4")
    verify(device, "ext4")


def test_a_crashed_ext4_is_replayed_by_check(
    blank: Serve, attach: Attach, fuse: FuseLoop, work_directory: Path
) -> None:
    """A copy of a mounted filesystem is what a crash leaves."""
    source = attach(blank(512 * MIB))
    filesystems.make(source.path, "ext4")
    target = mounted(source, "ext4", work_directory / "target")
    (target / "file").write_text("written")
    os.sync()
    copy = attach(blank(512 * MIB), identity="copy")
    with source.path.open("rb") as old, copy.path.open("wb") as new:
        while chunk := old.read(MIB):
            new.write(chunk)
    filesystems.check(copy.path, "ext4")
    verify(copy, "ext4")


def test_two_xfs_with_one_uuid_need_no_uuid(
    blank: Serve, attach: Attach, work_directory: Path
) -> None:
    source = attach(blank(512 * MIB))
    filesystems.make(source.path, "xfs")
    clone = attach(blank(512 * MIB), identity="clone")
    with source.path.open("rb") as old, clone.path.open("wb") as new:
        while chunk := old.read(MIB):
            new.write(chunk)
    mounted(source, "xfs", work_directory / "source")
    target = work_directory / "clone"
    with pytest.raises(PreconditionError, match="mounting"):
        mounts.mount_device(clone.path, target, "xfs", mounts.MountOptions())
    options = mounts.MountOptions(no_uuid=True)
    mounts.mount_device(clone.path, target, "xfs", options)
    assert "nouuid" in mounts.require_mounted(target).super_options
