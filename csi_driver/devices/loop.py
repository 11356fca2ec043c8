# SPDX-License-Identifier: Apache-2.0
"""Loop devices by ioctl: bind a file with direct I/O, grow it, release it.

Whose file it is, and what serves it, is left to `fuse_loop`.

Numbers and layouts: Linux include/uapi/linux/loop.h.  LOOP_CONFIGURE (5.8 and
later) sets file, sector size and limit in one step, so that no other process
ever sees the device half made.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from csi_driver.devices import sysfs
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError

CONTROL: Final = Path("/dev/loop-control")
SECTOR_SIZE: Final = 4096

LOOP_CLR_FD: Final = 0x4C01
LOOP_SET_STATUS64: Final = 0x4C04
LOOP_GET_STATUS64: Final = 0x4C05
LOOP_CONFIGURE: Final = 0x4C0A
LOOP_CTL_GET_FREE: Final = 0x4C82

LO_FLAGS_READ_ONLY: Final = 1
LO_FLAGS_DIRECT_IO: Final = 16

_INFO: Final = struct.Struct("=QQQQQIIII64s64s32sQQ")
_SIZE_LIMIT: Final = 4
_CONFIG_HEAD: Final = struct.Struct("=II")
_CONFIG_TAIL: Final = bytes(64)
_BIND_ATTEMPTS: Final = 16


def pack_config(descriptor: int, size_limit: int, flags: int, name: str) -> bytes:
    """Return a struct loop_config: `size_limit` in bytes, 4096-byte sectors.

    The kernel keeps at most 63 bytes of `name`; sysfs has the whole path.
    """
    label = os.fsencode(name)[:63]
    info = _INFO.pack(0, 0, 0, 0, size_limit, 0, 0, 0, flags, label, b"", b"", 0, 0)
    return _CONFIG_HEAD.pack(descriptor, SECTOR_SIZE) + info + _CONFIG_TAIL


def with_size_limit(info: bytes, size_limit: int) -> bytes:
    """Return a struct loop_info64 in which only the size limit differs."""
    fields = list(_INFO.unpack(info))
    fields[_SIZE_LIMIT] = size_limit
    return _INFO.pack(*fields)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def bind(backing: Path, size: int, *, read_only: bool) -> Path:
    """Bind a file to a free loop device that shows `size` bytes; its path.

    Raises ExhaustedError when no loop device is to be had.  Direct I/O is
    demanded: the page cache must not keep what the export has not stored.
    """
    access = os.O_RDONLY if read_only else os.O_RDWR
    flags = LO_FLAGS_DIRECT_IO | (LO_FLAGS_READ_ONLY if read_only else 0)
    try:
        with _opened(backing, access | os.O_DIRECT) as file:
            config = pack_config(file, size, flags, str(backing))
            path = _configure_free(config, access)
    except OSError as error:
        raise InternalError(f"{backing} cannot back a device: {error}") from error
    if sysfs.read_attribute(sysfs.BLOCK / path.name / "loop" / "dio") != "1":
        release(path)
        raise InternalError(f"{path} on {backing} does not use direct I/O")
    return path


def _configure_free(config: bytes, access: int) -> Path:
    for _ in range(_BIND_ATTEMPTS):
        with _opened(CONTROL, os.O_RDWR) as control:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        path = sysfs.DEVICES / f"loop{number}"
        try:
            with _opened(path, access) as device:
                fcntl.ioctl(device, LOOP_CONFIGURE, config)
        except FileNotFoundError as error:
            raise ExhaustedError(
                f"{path} has no node: /dev must be the kernel's devtmpfs"
            ) from error
        except OSError as error:
            if error.errno == errno.EBUSY:
                continue  # another process took it between the two calls
            raise InternalError(f"{path} could not be set up: {error}") from error
        return path
    raise ExhaustedError("no free loop device after several attempts")


def resize(path: Path, size: int) -> None:
    """Show `size` bytes, as far as the file behind it reaches."""
    try:
        with _opened(path, os.O_RDONLY) as device:
            info = fcntl.ioctl(device, LOOP_GET_STATUS64, bytes(_INFO.size))
            fcntl.ioctl(device, LOOP_SET_STATUS64, with_size_limit(info, size))
    except OSError as error:
        raise InternalError(f"{path} could not be resized: {error}") from error


def release(path: Path, timeout: float = 10.0) -> None:
    """Unbind the device and wait until it is free; nothing to do is success.

    Raises InUseError when somebody keeps it open for `timeout` seconds: the
    kernel frees it at the last close.  It may then be bound to another file, by
    whoever asks for a free device next.
    """
    bound = _binding(path)
    try:
        with _opened(path, os.O_RDONLY) as device:
            fcntl.ioctl(device, LOOP_CLR_FD)
    except OSError as error:
        if error.errno not in {errno.ENXIO, errno.ENOENT}:
            raise InternalError(f"{path} could not be released: {error}") from error
    if not sysfs.wait_until(
        lambda: backing_file(path.name) is None or _binding(path) != bound, timeout
    ):
        raise InUseError(f"{path} is still open: end the process that uses it")


def _binding(path: Path) -> str | None:
    """Return what tells one binding of a loop device from the next.

    The kernel counts disks (5.15 and later); before, the file's name has to do, and
    no more of its path, which is lost with the mount namespace of the file.  The
    status of the device would not do: it is an error once the FUSE file behind it
    is dead.
    """
    counted = sysfs.read_attribute(sysfs.BLOCK / path.name / "diskseq")
    if counted is not None:
        return counted
    backing = backing_file(path.name)
    return backing.name if backing else None


def backing_file(name: str) -> Path | None:
    """Return the file behind loopN, None if it is free."""
    text = sysfs.read_attribute(sysfs.BLOCK / name / "loop" / "backing_file")
    return Path(text) if text else None


def find(file_name: str) -> Path | None:
    """Find the loop device bound to a file of that name, wherever it is."""
    for name in sysfs.names("loop"):
        found = backing_file(name)
        if found is not None and found.name == file_name:
            return sysfs.DEVICES / name
    return None
