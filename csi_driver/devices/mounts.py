# SPDX-License-Identifier: Apache-2.0
"""Mounts: a device on a directory, a directory or a device node bound elsewhere.

Each function says what it wants to see at a path, finds out what is there, and
either has nothing to do, does it, or refuses with what it found.  The paths
themselves are the matter of `targets`; which paths and options a volume gets is
decided in `staging`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csi_driver.devices import commands
from csi_driver.devices import filesystems
from csi_driver.devices import sysfs
from csi_driver.devices.mountinfo import Mount
from csi_driver.devices.mountinfo import at
from csi_driver.devices.mountinfo import canonical
from csi_driver.devices.mountinfo import holding
from csi_driver.devices.mountinfo import of_device
from csi_driver.devices.mountinfo import read_mounts
from csi_driver.devices.targets import prepare_directory
from csi_driver.devices.targets import prepare_file
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError

__all__ = [
    "Mount",
    "MountOptions",
    "at",
    "bind_device",
    "bind_directory",
    "check_flags",
    "device_numbers",
    "holding",
    "mount_device",
    "mounted_device",
    "of_device",
    "read_mounts",
    "require_mounted",
    "unmount",
    "unmount_once",
    "users",
]

MOUNT_TIMEOUT: Final = 110.0
MAX_STACKED: Final = 64

# What a flag must not do: name another source, change what is mounted where,
# or put the journal on a device of the node.
_REFUSED_FLAGS: Final = frozenset(
    {
        "bind",
        "rbind",
        "move",
        "remount",
        "loop",
        "offset",
        "sizelimit",
        "logdev",
        "rtdev",
        "journal_dev",
        "journal_path",
        "private",
        "shared",
        "slave",
        "unbindable",
        "rprivate",
        "rshared",
        "rslave",
        "runbindable",
    }
)
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+\Z")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a filesystem is mounted.

    `flags` may ask for "ro", too.  `no_uuid`: for an xfs clone, whose UUID is
    its source's, which may be mounted on the same node.
    """

    flags: tuple[str, ...] = ()
    read_only: bool = False
    no_uuid: bool = False

    @property
    def writable(self) -> bool:
        """Whether files can be written; of several flags the last one counts."""
        chosen = [flag for flag in self.flags if flag in {"ro", "rw"}]
        return not self.read_only and chosen[-1:] != ["ro"]


def check_flags(flags: Sequence[str]) -> None:
    """Refuse mount flags that are malformed or reach beyond the volume.

    Raises InvalidRequestError with the flag.
    """
    for flag in flags:
        name = flag.partition("=")[0].lower()
        if not _PRINTABLE.match(flag) or flag.startswith(("-", ",")):
            raise InvalidRequestError(f"the mount flag {flag!r} is malformed")
        outside_quotes = re.sub(r'"[^"]*"', "", flag)
        if "," in outside_quotes or '"' in outside_quotes:
            raise InvalidRequestError(
                f"the mount flag {flag!r} holds several flags: give them one by one"
            )
        if name in _REFUSED_FLAGS or name.startswith("x-"):
            raise InvalidRequestError(f"the mount flag {flag!r} is not allowed")


def _top(path: Path) -> Mount | None:
    stacked = at(read_mounts(), path)
    return stacked[-1] if stacked else None


def device_numbers(device: Path) -> tuple[int, int]:
    """Return a block device's (major, minor); PreconditionError for other paths."""
    try:
        found = device.stat()
    except OSError as error:
        raise NotFoundError(f"{device} is not there: {error}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise PreconditionError(f"{device} is not a block device")
    return os.major(found.st_rdev), os.minor(found.st_rdev)


def mount_device(
    device: Path, target: Path, filesystem: str, options: MountOptions
) -> None:
    """Mount a device's filesystem on a directory; success if it is mounted so.

    Raises AlreadyExistsError when something else is mounted there, or the same
    with the other access; PreconditionError when the target is no directory or
    the kernel refuses the filesystem, with the reason where it is known.
    """
    check_flags(options.flags)
    numbers = device_numbers(device)
    prepare_directory(target)
    found = _top(target)
    if found is not None:
        expected = f"{filesystem} of {device}"
        matches = found.numbers == numbers and found.root == "/"
        _require_same(found, target, expected, matches, not options.writable)
        return
    flags = [flag for flag in options.flags if flag not in {"ro", "rw"}]
    if options.no_uuid and filesystem == "xfs" and "nouuid" not in flags:
        flags.append("nouuid")
    flags.append("rw" if options.writable else "ro")
    arguments = ["--types", filesystem, "--options", ",".join(flags)]
    try:
        _mount([*arguments, "--", str(device), canonical(target)])
    except PreconditionError as error:
        reason = filesystems.too_fine(device)
        if reason is None:
            raise
        raise PreconditionError(f"{error}; {reason}") from error


def _require_same(
    found: Mount, target: Path, expected: str, matches: bool, read_only: bool
) -> None:
    """Raise AlreadyExistsError unless the mount is the one that was asked for."""
    if matches and found.read_only == read_only:
        return
    access = "read-only" if read_only else "writable"
    raise AlreadyExistsError(
        f"{target} has {found.describe()} mounted, expected {expected}, {access}: "
        "unmount it first"
    )


def bind_directory(
    source: Path, target: Path, *, read_only: bool, flags: Sequence[str] = ()
) -> None:
    """Show a mounted directory at another one; success if it is shown so.

    `flags` are those of the mount itself (nosuid, noexec, …).  Raises
    AlreadyExistsError when something else is mounted at the target, and
    PreconditionError when nothing is mounted at the source.
    """
    check_flags(flags)
    origin = _top(source)
    if origin is None:
        raise PreconditionError(f"nothing is mounted at {source}: stage it first")
    prepare_directory(target)
    found = _top(target)
    wanted_read_only = read_only or origin.read_only
    if found is not None:
        same = (found.numbers, found.root) == (origin.numbers, origin.root)
        expected = f"the same as {source}"
        _require_same(found, target, expected, same, wanted_read_only)
        return
    _bind(source, target, [*flags, *(["ro"] if read_only else [])])


def bind_device(device: Path, target: Path) -> None:
    """Show a block device's node at a file; success if it is shown so.

    Whether the device can be written is the device's own property: a read-only
    mount does not protect a block device from its node.  Raises
    AlreadyExistsError when something else is mounted at the target.
    """
    numbers = device_numbers(device)
    prepare_file(target)
    found = _top(target)
    if found is not None:
        if mounted_device(target) != numbers:
            raise AlreadyExistsError(
                f"{target} has {found.describe()} mounted, expected the device "
                f"{device}: unmount it first"
            )
        return
    _bind(device, target, [])


def users(name: str) -> tuple[Mount, ...]:
    """Return the mounts of a device's filesystem, and those of its node.

    A node that is shown to a pod leads to whatever volume has the device next.
    """
    numbers = sysfs.numbers(name)
    return tuple(
        mount
        for mount in read_mounts()
        if mount.numbers == numbers
        or (Path(mount.root).name == name and _shows(mount, numbers))
    )


def _shows(mount: Mount, numbers: tuple[int, int]) -> bool:
    try:
        return mounted_device(Path(mount.mount_point)) == numbers
    except OSError:
        return False  # it lies below another mount, where nobody gets at it


def mounted_device(target: Path) -> tuple[int, int] | None:
    """Return (major, minor) of the device whose node is bound at a path.

    None if nothing is mounted there, or something that is no block device.
    """
    if _top(target) is None:
        return None
    found = os.lstat(target)
    if not stat.S_ISBLK(found.st_mode):
        return None
    return os.major(found.st_rdev), os.minor(found.st_rdev)


def _bind(source: Path, target: Path, flags: Sequence[str]) -> None:
    """Bind, then set the mount's own flags, which bind itself ignores."""
    place = canonical(target)
    _mount(["--bind", "--", str(source), place])
    if not flags:
        return
    try:
        _mount(["--options", ",".join(["remount", "bind", *flags]), "--", place])
    except BaseException:
        unmount_once(target)
        raise


def _mount(arguments: Sequence[str]) -> None:
    completed = commands.run(
        ["mount", "--no-mtab", "--no-canonicalize", *arguments], timeout=MOUNT_TIMEOUT
    )
    if completed.code:
        raise PreconditionError(
            f"mounting {arguments[-1]} failed: {completed.complaint()}"
        )


def unmount_once(target: Path, *, lazy: bool = False) -> str | None:
    """Take away the topmost mount at a path; the reason if that failed.

    `lazy` detaches it although it is in use: only for mount points of our own
    whose server is dead.
    """
    mode = ["--lazy"] if lazy else []
    completed = commands.run(
        ["umount", "--no-mtab", "--no-canonicalize", *mode, "--", canonical(target)],
        timeout=MOUNT_TIMEOUT,
    )
    return completed.complaint() if completed.code else None


def unmount(target: Path) -> None:
    """Unmount a path until nothing is mounted there; nothing to do is success.

    Raises InUseError when it is in use.
    """
    for _ in range(MAX_STACKED):
        found = _top(target)
        if found is None:
            return
        reason = unmount_once(target)
        if reason is not None and _top(target) == found:
            raise InUseError(
                f"{target} ({found.describe()}) cannot be unmounted: {reason}"
            )
    raise InUseError(f"more than {MAX_STACKED} mounts are stacked at {target}")


def require_mounted(path: Path) -> Mount:
    """Return the topmost mount at a path; NotFoundError if there is none."""
    found = _top(path)
    if found is None:
        raise NotFoundError(f"nothing is mounted at {path}")
    return found
