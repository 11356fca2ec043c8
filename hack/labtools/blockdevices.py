# SPDX-License-Identifier: Apache-2.0
"""Let go of block devices that a test or a dead driver left behind.

Runs inside, while what serves the devices is still alive: file systems can
then write back.  A guest with a mapped device would hang at power-off, and a
loop device would keep the lab's namespace and its file for ever.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

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
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
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
