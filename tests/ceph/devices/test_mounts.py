# SPDX-License-Identifier: Apache-2.0
"""Mounts and binds by the real kernel, and every wrong thing at a target."""

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
from csi_driver.devices import targets
from csi_driver.devices.device import Device
from csi_driver.devices.mounts import MountOptions
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError

MIB = 1 << 20
WRITABLE = MountOptions()
READ_ONLY = MountOptions(read_only=True)

type Serve = Callable[..., Path]
type Attach = Callable[..., Device]


@pytest.fixture
def staged(device: Device, work_directory: Path) -> Path:
    """Give a directory with a mounted ext4."""
    filesystems.make(device.path, "ext4")
    target = work_directory / "stag ing\\dir"
    mounts.mount_device(device.path, target, "ext4", WRITABLE)
    return target


def count(path: Path) -> int:
    return len(mounts.at(mounts.read_mounts(), path))


def test_mounting_twice_is_one_mount(device: Device, staged: Path) -> None:
    (staged / "file").write_text("here")
    mounts.mount_device(device.path, staged, "ext4", WRITABLE)
    assert count(staged) == 1
    found = mounts.require_mounted(staged)
    assert found.numbers == mounts.device_numbers(device.path)
    assert (found.filesystem, found.read_only) == ("ext4", False)


def test_other_access_at_the_same_target_is_refused(
    device: Device, staged: Path
) -> None:
    with pytest.raises(AlreadyExistsError, match="writable"):
        mounts.mount_device(device.path, staged, "ext4", READ_ONLY)


def test_something_else_at_the_target_is_refused(
    device: Device, work_directory: Path
) -> None:
    filesystems.make(device.path, "ext4")
    target = work_directory / "target"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "stranger", target], check=True)
    with pytest.raises(AlreadyExistsError, match="tmpfs of stranger"):
        mounts.mount_device(device.path, target, "ext4", WRITABLE)
    assert count(target) == 1


@pytest.mark.parametrize(("kind", "words"), [("file", "a file"), ("link", "symbolic")])
def test_a_target_that_is_no_directory_is_refused(
    device: Device, work_directory: Path, kind: str, words: str
) -> None:
    filesystems.make(device.path, "ext4")
    target = work_directory / "target"
    if kind == "file":
        target.write_text("content")
    else:
        target.symlink_to("/")
    with pytest.raises(PreconditionError, match=words):
        mounts.mount_device(device.path, target, "ext4", WRITABLE)
    assert count(target) == 0
    assert target.is_symlink() == (kind == "link")


def test_read_only_and_flags_are_honoured(device: Device, work_directory: Path) -> None:
    filesystems.make(device.path, "ext4")
    target = work_directory / "target"
    options = MountOptions(("noatime", "nodev"), read_only=True)
    mounts.mount_device(device.path, target, "ext4", options)
    found = mounts.require_mounted(target)
    assert {"ro", "noatime", "nodev"} <= set(found.options)
    with pytest.raises(OSError, match="Read-only"):
        (target / "file").write_text("x")


@pytest.mark.parametrize(
    ("flags", "read_only"),
    [(("ro",), True), (("ro", "noatime", "rw"), False), (("rw", "ro"), True)],
)
def test_a_flag_asks_for_read_only_like_the_access_mode(
    device: Device, work_directory: Path, flags: tuple[str, ...], read_only: bool
) -> None:
    filesystems.make(device.path, "ext4")
    target = work_directory / "target"
    for _ in range(2):
        mounts.mount_device(device.path, target, "ext4", MountOptions(flags))
        assert mounts.require_mounted(target).read_only is read_only
    assert count(target) == 1


def test_a_device_without_that_filesystem_is_an_error(
    device: Device, work_directory: Path
) -> None:
    with pytest.raises(PreconditionError, match="mount failed with exit code"):
        mounts.mount_device(device.path, work_directory / "target", "ext4", WRITABLE)


@pytest.mark.parametrize(
    ("tool", "smallest"),
    [
        (["mkfs.ext4", "-q", "-b", "1024"], 1024),
        (["mkfs.xfs", "-q", "-s", "size=512"], 512),
    ],
)
def test_a_filesystem_of_smaller_sectors_than_the_device_is_told_as_such(
    serve: Serve, attach: Attach, work_directory: Path, tool: list[str], smallest: int
) -> None:
    file = work_directory / "image"
    file.touch()
    os.truncate(file, 512 * MIB)
    subprocess.run([*tool, file], check=True, capture_output=True)
    device = attach(serve(file)).path
    found = filesystems.read_superblock(device)
    assert (found.smallest, stats.sector_size(device)) == (smallest, 4096)
    target = work_directory / "target"
    with pytest.raises(PreconditionError, match=f"{smallest} bytes at a time.*4096"):
        mounts.mount_device(device, target, found.filesystem, WRITABLE)


def test_paths_that_cannot_be_are_errors(device: Device, work_directory: Path) -> None:
    (work_directory / "file").touch()
    below_a_file = work_directory / "file" / "target"
    too_long = work_directory / ("x" * 300)
    for target in (below_a_file, too_long):
        with pytest.raises(PreconditionError, match="cannot be looked at"):
            mounts.mount_device(device.path, target, "ext4", WRITABLE)
        with pytest.raises(PreconditionError, match="cannot be looked at"):
            mounts.bind_device(device.path, target)
    with pytest.raises(NotFoundError, match="no-device"):
        mounts.bind_device(Path("/dev/no-device"), work_directory / "target")
    assert not (work_directory / "target").exists()
    with pytest.raises(InternalError, match="cannot back a device"):
        loop.bind(work_directory / "absent", 1 << 20, read_only=False)


def test_flags_that_reach_elsewhere_are_refused(
    device: Device, work_directory: Path
) -> None:
    options = MountOptions(("journal_path=/dev/vda",))
    with pytest.raises(InvalidRequestError):
        mounts.mount_device(device.path, work_directory / "target", "ext4", options)
    assert not (work_directory / "target").exists()


def test_a_directory_is_published_writable_and_read_only(
    staged: Path, work_directory: Path
) -> None:
    (staged / "file").write_text("seen")
    writable, frozen = work_directory / "writable", work_directory / "frozen"
    for _ in range(2):
        mounts.bind_directory(staged, writable, read_only=False, flags=["noexec"])
        mounts.bind_directory(staged, frozen, read_only=True)
    assert (count(writable), count(frozen)) == (1, 1)
    assert "noexec" in mounts.require_mounted(writable).options
    assert (frozen / "file").read_text() == "seen"
    (writable / "new").write_text("x")
    with pytest.raises(OSError, match="Read-only"):
        (frozen / "new").write_text("x")
    (staged / "still writable").write_text("x")
    with pytest.raises(AlreadyExistsError, match="expected the same as"):
        mounts.bind_directory(staged, frozen, read_only=False)


def test_publishing_what_is_not_staged_is_an_error(work_directory: Path) -> None:
    source, target = work_directory / "source", work_directory / "target"
    source.mkdir()
    with pytest.raises(PreconditionError, match="stage it first"):
        mounts.bind_directory(source, target, read_only=False)
    assert not target.exists()


def test_publishing_over_something_else_is_refused(
    staged: Path, work_directory: Path
) -> None:
    target, other = work_directory / "target", staged / "inside"
    target.mkdir()
    other.mkdir()
    subprocess.run(["mount", "--bind", other, target], check=True)
    with pytest.raises(AlreadyExistsError, match="its /inside"):
        mounts.bind_directory(staged, target, read_only=False)


def test_a_device_is_published_as_a_node(device: Device, work_directory: Path) -> None:
    target = work_directory / "deep" / "node"
    for _ in range(2):
        mounts.bind_device(device.path, target)
    assert count(target) == 1
    assert mounts.mounted_device(target) == mounts.device_numbers(device.path)
    assert stats.device_size(target) == stats.device_size(device.path)
    mounts.unmount(target)
    assert mounts.mounted_device(target) is None
    targets.remove_target(target)
    assert not target.exists()


def test_a_node_is_not_published_over_another_device_or_a_directory(
    device: Device, work_directory: Path
) -> None:
    target = work_directory / "node"
    target.touch()
    subprocess.run(["mount", "--bind", "/dev/null", target], check=True)
    with pytest.raises(AlreadyExistsError, match="expected the device"):
        mounts.bind_device(device.path, target)
    directory = work_directory / "directory"
    directory.mkdir()
    with pytest.raises(PreconditionError, match="a directory, expected a file"):
        mounts.bind_device(device.path, directory)
    with pytest.raises(PreconditionError, match="not a block device"):
        mounts.bind_device(Path("/dev/null"), work_directory / "third")


def test_unmount_takes_every_stacked_mount_and_is_repeatable(
    staged: Path, work_directory: Path
) -> None:
    target = work_directory / "target"
    mounts.bind_directory(staged, target, read_only=False)
    subprocess.run(["mount", "--bind", staged, target], check=True)
    assert count(target) == 2
    mounts.unmount(target)
    mounts.unmount(target)
    assert count(target) == 0
    targets.remove_target(target)
    targets.remove_target(target)
    assert not target.exists()


def test_a_mount_in_use_is_not_torn_away(staged: Path) -> None:
    with (staged / "open").open("w"), pytest.raises(InUseError, match="busy"):
        mounts.unmount(staged)
    assert count(staged) == 1


def test_a_target_is_removed_only_when_it_is_empty(
    staged: Path, work_directory: Path
) -> None:
    with pytest.raises(InUseError):
        targets.remove_target(staged)
    (work_directory / "full").mkdir()
    (work_directory / "full" / "file").touch()
    with pytest.raises(PreconditionError, match="not empty"):
        targets.remove_target(work_directory / "full")
    (work_directory / "link").symlink_to("/")
    with pytest.raises(PreconditionError, match="symbolic"):
        targets.remove_target(work_directory / "link")


def test_nothing_mounted_is_not_found(work_directory: Path) -> None:
    with pytest.raises(NotFoundError):
        mounts.require_mounted(work_directory)


def test_a_parent_may_be_a_symbolic_link(device: Device, work_directory: Path) -> None:
    """Kubelet's directory is a link on some nodes; mountinfo has real paths."""
    filesystems.make(device.path, "ext4")
    (work_directory / "real").mkdir()
    (work_directory / "link").symlink_to(work_directory / "real")
    target = work_directory / "link" / "target"
    for _ in range(2):
        mounts.mount_device(device.path, target, "ext4", WRITABLE)
    assert count(work_directory / "real" / "target") == 1
    mounts.unmount(target)
    assert count(target) == 0


def test_where_a_path_lies(staged: Path) -> None:
    (staged / "a").mkdir()
    found = mounts.holding(mounts.read_mounts(), staged / "a")
    assert found is not None
    mount, inside = found
    assert (mount.mount_point, inside) == (str(staged), "/a")
    assert staged.stat().st_dev == os.makedev(*mount.numbers)


def test_users_are_mounts_of_the_filesystem_and_of_the_node(
    device: Device, staged: Path, work_directory: Path
) -> None:
    name = device.path.name
    assert [each.mount_point for each in mounts.users(name)] == [str(staged)]
    below = work_directory / "below"
    mounts.bind_device(device.path, below / "node")
    assert len(mounts.users(name)) == 2
    subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
    assert [each.mount_point for each in mounts.users(name)] == [str(staged)]
    mounts.unmount(below)
    mounts.unmount(below / "node")
