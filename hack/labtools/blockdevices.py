# SPDX-License-Identifier: Apache-2.0
"""Let go of block devices that a test or a dead driver left behind.

Runs inside, while what serves the devices is still alive: file systems can
then write back.  A guest with a mapped device would hang at power-off, and a
loop device would keep the lab's namespace and its file for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labtools.processes import Process

_LOOP_CLR_FD = 0x4C01
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO = struct.Struct("=Q224x")
"""A struct loop_info64, of which only lo_device is looked at."""
_NBD_CLEAR_SOCK = 0xAB04
_NBD_DISCONNECT = 0xAB08


def _mounts() -> list[tuple[str, str, str]]:
    """Return (source, mount point, type) of all mounts, the oldest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        kind, source = right.split()[:2]
        found.append((source, point, kind))
    return found


def _unmount(point: str) -> None:
    if subprocess.run(["umount", point], capture_output=True, check=False).returncode:
        # Busy or its server is dead: detach it, or nothing after it works.
        subprocess.run(["umount", "-l", point], capture_output=True, check=False)


def _loops_on(points: list[str]) -> list[str]:
    """Return the loop devices whose backing file is, or lies under, a point."""
    found = []
    for entry in _loops():
        try:
            backing = entry.read_text().strip()
        except OSError:
            continue  # detached meanwhile
        if any(f"{backing}/".startswith(f"{point}/") for point in points):
            found.append(f"/dev/{entry.parts[3]}")
    return found


def _disconnect(device: str) -> None:
    """Disconnect a kernel NBD device; works for those set up over netlink too."""
    descriptor = os.open(device, os.O_RDWR)
    try:
        for request in (_NBD_DISCONNECT, _NBD_CLEAR_SOCK):
            fcntl.ioctl(descriptor, request)
    finally:
        os.close(descriptor)


def release_all(kind: str) -> None:
    """Unmount and detach: loops over FUSE, and in a guest every /dev/nbdN."""
    mounts = _mounts()
    fuse = [point for _, point, name in mounts if name.partition(".")[0] == "fuse"]
    loops = _loops_on(fuse)
    busy = []
    if kind == "guest":
        pids = Path("/sys/block").glob("nbd*/pid")
        busy = [f"/dev/{path.parts[3]}" for path in pids]
    for source, point, _ in reversed(mounts):
        if source in {*loops, *busy}:
            _unmount(point)
    _unmount_bound_devices(mounts)
    for device in loops:
        subprocess.run(["losetup", "-d", device], capture_output=True, check=False)
    for device in busy:
        _disconnect(device)
    for point in reversed(fuse):
        _unmount(point)


def _unmount_bound_devices(mounts: list[tuple[str, str, str]]) -> None:
    """Undo the bind mounts of device nodes that block volumes are published by."""
    for source, point, _ in reversed(mounts):
        if source in {"devtmpfs", "udev", "dev"} and Path(point).is_block_device():
            _unmount(point)


def loops_of(processes: Iterable[Process]) -> list[str]:
    """Return the loop devices on FUSE files that any of the processes sees mounted.

    Containers have mount namespaces of their own, so that only their processes
    tell what is mounted in them.
    """
    files = set()
    for process in processes:
        with contextlib.suppress(OSError):  # ended meanwhile
            text = Path(f"/proc/{process.pid}/mountinfo").read_text()
            for line in text.splitlines():
                left, _, right = line.partition(" - ")
                if right.startswith("fuse"):
                    major, minor = left.split()[2].split(":")
                    files.add(os.makedev(int(major), int(minor)))
    devices = [f"/dev/{entry.parts[3]}" for entry in _loops()]
    return [device for device in devices if _file_system_behind(device) in files]


def free_loops(devices: Iterable[str]) -> None:
    """Unbind loop devices; what serves them may have ended."""
    for device in devices:
        with contextlib.suppress(OSError):  # free already
            descriptor = os.open(device, os.O_RDONLY)
            try:
                fcntl.ioctl(descriptor, _LOOP_CLR_FD)
            finally:
                os.close(descriptor)


def _loops() -> list[Path]:
    """Return the attributes of the loop devices that are bound."""
    return list(Path("/sys/block").glob("loop*/loop/backing_file"))


def _file_system_behind(device: str) -> int | None:
    """Return the device number of the file system that a loop's file is on."""
    try:
        descriptor = os.open(device, os.O_RDONLY)
    except OSError:
        return None
    try:
        info = fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, bytes(_LOOP_INFO.size))
    except OSError:
        return None  # free by now
    finally:
        os.close(descriptor)
    return int(_LOOP_INFO.unpack(info)[0])
