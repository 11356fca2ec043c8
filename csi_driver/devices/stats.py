# SPDX-License-Identifier: Apache-2.0
"""How large a device and its sectors are, and how full a filesystem.

Units are bytes and inodes.  Turning them into an RPC's answer is left to `rpc`.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError

BLKGETSIZE64: Final = 0x80081272
BLKSSZGET: Final = 0x1268


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    """What statvfs(3) says; `available_*` is what an ordinary user may use."""

    total_bytes: int
    used_bytes: int
    available_bytes: int
    total_inodes: int
    used_inodes: int
    available_inodes: int


def filesystem_usage(path: Path) -> FilesystemUsage:
    """Return the usage of the filesystem that holds a path.

    Raises NotFoundError if there is no such path, or its filesystem is dead.
    """
    try:
        found = os.statvfs(path)
    except OSError as error:
        raise NotFoundError(f"{path} has no usage to tell: {error}") from error
    return FilesystemUsage(
        total_bytes=found.f_blocks * found.f_frsize,
        used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
        available_bytes=found.f_bavail * found.f_frsize,
        total_inodes=found.f_files,
        used_inodes=found.f_files - found.f_ffree,
        available_inodes=found.f_favail,
    )


def device_size(path: Path) -> int:
    """Return the size of a block device in bytes.

    Raises PreconditionError if the path is something else, NotFoundError if it
    cannot be opened.  Nothing of it is read.
    """
    (size,) = struct.unpack("=Q", _asked(path, BLKGETSIZE64, 8))
    return int(size)


def sector_size(path: Path) -> int:
    """Return the bytes of a block device's smallest read and write.

    Raises as `device_size` does.
    """
    (size,) = struct.unpack("=i", _asked(path, BLKSSZGET, 4))
    return int(size)


def _asked(path: Path, request: int, answer_bytes: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotFoundError(f"{path} cannot be opened: {error}") from error
    try:
        if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
            raise PreconditionError(f"{path} is not a block device")
        return fcntl.ioctl(descriptor, request, bytes(answer_bytes))
    finally:
        os.close(descriptor)
