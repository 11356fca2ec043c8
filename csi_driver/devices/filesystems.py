# SPDX-License-Identifier: Apache-2.0
"""Filesystems on a device: find, make, check and grow them with their tools.

Whether a volume may get a filesystem is decided in `staging` from the record;
the functions here only refuse what is never right: making one over a signature,
repairing by force, taking an ambiguous probe for an answer.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csi_driver.devices import commands
from csi_driver.devices import mkfs_options
from csi_driver.devices import stats
from csi_driver.devices.stats import device_size
from csi_driver.domain import superblock
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.superblock import Superblock

FILESYSTEMS: Final = ("ext4", "xfs")

PROBE_TIMEOUT: Final = 60.0
MAKE_TIMEOUT: Final = 1800.0
CHECK_TIMEOUT: Final = 4 * 3600.0
GROW_TIMEOUT: Final = 1800.0

_BLKID_NOTHING: Final = 2
_BLKID_AMBIVALENT: Final = 8
_FSCK_CORRECTED: Final = 1
_CAP_SYS_RESOURCE: Final = 24
# _IOR('X', 100, struct xfs_fsop_geom_v1), fs/xfs/libxfs/xfs_fs.h
_XFS_IOC_FSGEOMETRY_V1: Final = 0x80705864
_XFS_GEOMETRY_BYTES: Final = 112
_XFS_DATA_BLOCKS: Final = 32


@dataclass(frozen=True, slots=True)
class Signature:
    """What a device's content says it is; at least one of the two is set.

    `kind` is blkid's TYPE (a filesystem, or LUKS, LVM, …), `partition_table`
    its PTTYPE; `uuid` is the filesystem's, as it prints it.
    """

    kind: str | None
    partition_table: str | None
    uuid: str | None

    def describe(self) -> str:
        """Name the content for a message."""
        parts = [
            self.kind or "",
            f"a partition table ({self.partition_table})"
            if self.partition_table
            else "",
        ]
        return " and ".join(filter(None, parts))


def parse_export(text: str) -> Mapping[str, str]:
    """Read `blkid -o export`: KEY=value lines, values escaped by backslashes."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            found[key] = _unbackslash(value)
    return found


def _unbackslash(value: str) -> str:
    characters: list[str] = []
    escaped = False
    for character in value:
        if character == "\\" and not escaped:
            escaped = True
            continue
        characters.append(character)
        escaped = False
    return "".join(characters)


def probe(device: Path) -> Signature | None:
    """Look at a device's content, past every cache; None if nothing is known.

    Raises PreconditionError when the content is ambiguous, or is one that
    blkid knows and cannot name: never an answer to make a filesystem on.
    """
    arguments = ["blkid", "-p", "-o", "export", "--", str(device)]
    completed = commands.run(arguments, timeout=PROBE_TIMEOUT)
    if completed.code == _BLKID_NOTHING:
        _require_readable(device)
        _require_no_signature(device)
        return None
    if completed.code == _BLKID_AMBIVALENT:
        raise _ambiguous(device, "signatures of several kinds")
    if completed.code:
        raise InternalError(f"{device} cannot be probed: {completed.complaint()}")
    found = parse_export(completed.output)
    signature = Signature(found.get("TYPE"), found.get("PTTYPE"), found.get("UUID"))
    if signature.kind is None and signature.partition_table is None:
        raise PreconditionError(
            f"{device} holds something that blkid does not name: {sorted(found)}"
        )
    return signature


def _require_readable(device: Path) -> None:
    """Tell "nothing there" from "cannot be read": blkid says 2 for both."""
    try:
        size = device_size(device)
        with device.open("rb", buffering=0) as file:
            file.read(4096)
            file.seek(size - 4096)
            file.read(4096)
    except OSError as error:
        raise PreconditionError(f"{device} cannot be read: {error}") from error


def _require_no_signature(device: Path) -> None:
    """Ask a second tool: blkid also says 2 when it cannot decide.

    Measured with util-linux 2.41: a device with an xfs and an ext4 superblock
    is "nothing" to blkid, where its manual promises exit code 8.
    """
    arguments = ["wipefs", "--no-act", "--noheadings", "--output", "TYPE"]
    completed = commands.check([*arguments, str(device)], timeout=PROBE_TIMEOUT)
    kinds = sorted(set(completed.output.split()))
    if kinds:
        raise _ambiguous(device, f"signatures of {', '.join(kinds)}")


def _ambiguous(device: Path, what: str) -> PreconditionError:
    return PreconditionError(
        f"{device} carries {what}, so what it holds is not clear; look at it with "
        "`wipefs` and remove the wrong one by hand"
    )


def make(
    device: Path, filesystem: str, user_options: str = "", *, overwrite: bool = False
) -> Signature:
    """Make a filesystem and return what a probe then finds.

    `overwrite` is for a device on which an earlier `make` was cut short;
    otherwise any signature raises PreconditionError.  So does a tool's refusal
    (options that do not fit the size).  Nothing is discarded.
    """
    tool, *options = mkfs_options.build(filesystem, user_options)
    if not overwrite:
        found = probe(device)
        if found is not None:
            raise PreconditionError(
                f"{device} holds {found.describe()}: no {filesystem} is made over it"
            )
    elif filesystem == "xfs":
        options.append("-f")
    completed = commands.run([tool, *options, str(device)], timeout=MAKE_TIMEOUT)
    if completed.code:
        raise PreconditionError(f"{device} got no filesystem: {completed.complaint()}")
    made = probe(device)
    if made is None or made.kind != filesystem or made.partition_table is not None:
        found_text = made.describe() if made else "nothing"
        raise InternalError(f"{device} holds {found_text} after {tool}")
    return made


def check(device: Path, filesystem: str) -> None:
    """Make an unmounted filesystem fit for mounting, without any forced repair.

    ext4: `e2fsck -p` replays the journal and corrects what is safe.  xfs: none,
    its mount replays the log.  Raises PreconditionError with the remedy when
    errors are left.
    """
    if filesystem == "xfs":
        return
    _require_known(filesystem)
    completed = commands.run(["e2fsck", "-p", str(device)], timeout=CHECK_TIMEOUT)
    if completed.code & ~_FSCK_CORRECTED or completed.code < 0:
        raise PreconditionError(
            f"the ext4 filesystem on {device} is not fit for mounting: "
            f"{completed.complaint()}; take a snapshot and run `e2fsck -f {device}` "
            "by hand"
        )


def _require_known(filesystem: str) -> None:
    if filesystem not in FILESYSTEMS:
        raise UnsupportedError(
            f"filesystem {filesystem!r} is not offered: use ext4 or xfs"
        )


def read_superblock(device: Path) -> Superblock:
    """Read an ext4 or xfs superblock from a device.

    xfs keeps a mounted filesystem's superblock elsewhere: use `mounted_xfs_size`
    for its size then.  Raises PreconditionError if there is none.
    """
    try:
        with device.open("rb", buffering=0) as file:
            found = superblock.parse(file.read(superblock.HEAD_BYTES))
    except OSError as error:
        raise PreconditionError(f"{device} cannot be read: {error}") from error
    if found is None:
        raise PreconditionError(f"{device} holds neither ext4 nor xfs")
    return found


def too_fine(device: Path) -> str | None:
    """Say why the kernel mounts the device's filesystem on no such device.

    mount itself only says "wrong fs type, bad option, bad superblock", whichever
    it is.  None where the sectors of the device are small enough, or where there
    is no ext4 or xfs.
    """
    try:
        smallest = read_superblock(device).smallest
        sector = stats.sector_size(device)
    except (NotFoundError, PreconditionError):
        return None
    if smallest >= sector:
        return None
    return (
        f"its filesystem reads and writes {smallest} bytes at a time, and the device"
        f" no less than {sector}, as every device of this driver: map the image by"
        " other means (`rbd map`, `rbd-nbd map`) and copy the files to a volume that"
        " this driver makes, or use it as a block volume"
    )


def mounted_xfs_size(mount_point: Path) -> int:
    """Return the size of a mounted xfs, in bytes, as its kernel sees it."""
    try:
        descriptor = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            answer = fcntl.ioctl(
                descriptor, _XFS_IOC_FSGEOMETRY_V1, bytes(_XFS_GEOMETRY_BYTES)
            )
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PreconditionError(f"{mount_point} is no mounted xfs: {error}") from error
    (block_size,) = struct.unpack_from("=I", answer)
    (blocks,) = struct.unpack_from("=Q", answer, _XFS_DATA_BLOCKS)
    return int(block_size) * int(blocks)


def can_grow_ext4_mounted() -> bool:
    """Say whether this process has CAP_SYS_RESOURCE, which ext4 asks for."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def grow_unmounted(device: Path, filesystem: str) -> bool:
    """Let an unmounted ext4 fill its device; True if it was smaller.

    resize2fs demands a full check first (`e2fsck -f -p`, which corrects only
    what is safe).  xfs grows when mounted: this answers False for it.
    """
    _require_known(filesystem)
    found = read_superblock(device)
    if found.filesystem != filesystem:
        raise PreconditionError(
            f"{device} holds {found.filesystem}, expected {filesystem}"
        )
    if filesystem == "xfs" or found.fills(device_size(device)):
        return False
    checked = commands.run(["e2fsck", "-f", "-p", str(device)], timeout=CHECK_TIMEOUT)
    if checked.code & ~_FSCK_CORRECTED or checked.code < 0:
        raise PreconditionError(
            f"the ext4 filesystem on {device} cannot grow before it is repaired: "
            f"{checked.complaint()}; take a snapshot and run `e2fsck -f {device}` "
            "by hand"
        )
    completed = commands.run(["resize2fs", str(device)], timeout=GROW_TIMEOUT)
    if completed.code:
        raise PreconditionError(f"{device} did not grow: {completed.complaint()}")
    return True


def grow_mounted(device: Path, filesystem: str, mount_point: Path) -> bool:
    """Let a mounted filesystem fill its device; True if it was smaller.

    Raises PreconditionError when ext4 may not grow while mounted because this
    process lacks CAP_SYS_RESOURCE.
    """
    _require_known(filesystem)
    target = device_size(device)
    if filesystem == "xfs":
        head = read_superblock(device)
        if target - mounted_xfs_size(mount_point) <= head.slack:
            return False
        tool = ["xfs_growfs", "-d", str(mount_point)]
    else:
        if read_superblock(device).fills(target):
            return False
        tool = ["resize2fs", str(device)]
    completed = commands.run(tool, timeout=GROW_TIMEOUT)
    if completed.code == 0:
        return True
    if "Permission denied to resize filesystem" in completed.errors:
        raise PreconditionError(
            f"the ext4 filesystem on {device} cannot grow while mounted: the driver "
            "lacks the capability CAP_SYS_RESOURCE; it grows offline the next time "
            "the volume is staged"
        )
    raise PreconditionError(
        f"the {filesystem} filesystem on {device} did not grow: {completed.complaint()}"
    )
