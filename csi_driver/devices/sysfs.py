# SPDX-License-Identifier: Apache-2.0
"""Block devices as sysfs tells them, and waiting for it to tell something.

Which attribute means what is left to `kernel_nbd` and `loop`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from csi_driver.domain.errors import NotFoundError

BLOCK: Final = Path("/sys/block")
DEVICES: Final = Path("/dev")
SECTOR: Final = 512

_POLL_SECONDS: Final = 0.01


def read_attribute(path: Path) -> str | None:
    """Return a sysfs attribute without its newline, None where there is none.

    An attribute can vanish between open and read (ENODEV).
    """
    try:
        return path.read_text().rstrip("\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition for at most `seconds`; True once it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def names(prefix: str) -> tuple[str, ...]:
    """Return the block devices named `prefix` and a number, in that order."""
    pattern = re.compile(rf"{prefix}(\d+)\Z")
    found = [
        (int(match.group(1)), path.name)
        for path in BLOCK.iterdir()
        if (match := pattern.match(path.name))
    ]
    return tuple(name for _, name in sorted(found))


def size(name: str) -> int:
    """Return the size a device shows, in bytes; 0 if there is no such device."""
    text = read_attribute(BLOCK / name / "size")
    return int(text) * SECTOR if text else 0


def read_only(name: str) -> bool:
    """Say whether the kernel refuses writes to the device."""
    return read_attribute(BLOCK / name / "ro") == "1"


def numbers(name: str) -> tuple[int, int]:
    """Return the device's major and minor number; NotFoundError without it."""
    text = read_attribute(BLOCK / name / "dev")
    if text is None:
        raise NotFoundError(f"there is no block device {name}")
    major, _, minor = text.partition(":")
    return int(major), int(minor)


def has_node(name: str) -> bool:
    """Say whether /dev has the block device's node."""
    try:
        return stat.S_ISBLK(os.lstat(DEVICES / name).st_mode)
    except FileNotFoundError:
        return False
