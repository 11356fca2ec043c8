# SPDX-License-Identifier: Apache-2.0
"""The paths that something is mounted on: made before, removed afterwards.

A path is judged by what stands there itself, never by what a symbolic link
points to.  Mounting is left to `mounts`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csi_driver.devices.mountinfo import at
from csi_driver.devices.mountinfo import read_mounts
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError


def prepare_directory(path: Path) -> None:
    """Make a directory to mount on, with its parents; success if it is there.

    A symbolic link or anything that is no directory raises PreconditionError.
    A mount on it is not looked through.
    """
    if at(read_mounts(), path):
        return  # what is mounted is judged by the caller's mount
    mode = _mode(path)
    if mode is None:
        with _explaining(path):
            path.mkdir(mode=0o750, parents=True, exist_ok=True)
        return
    if not stat.S_ISDIR(mode):
        raise PreconditionError(f"{path} is {_kind(mode)}, expected a directory")


def prepare_file(path: Path) -> None:
    """Make an empty file to bind a device node on; success if it is there.

    A symbolic link, a directory or a special file raises PreconditionError.
    """
    if at(read_mounts(), path):
        return
    mode = _mode(path)
    if mode is None:
        with _explaining(path):
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            path.touch(mode=0o660, exist_ok=False)
        return
    if not stat.S_ISREG(mode):
        raise PreconditionError(f"{path} is {_kind(mode)}, expected a file")


def remove_target(path: Path) -> None:
    """Remove an unmounted target, an empty directory or a file; absent is fine.

    Raises InUseError if something is still mounted there, PreconditionError
    if a directory is not empty or the path is of another kind.
    """
    if at(read_mounts(), path):
        raise InUseError(f"{path} is still mounted")
    mode = _mode(path)
    if mode is None:
        return
    if stat.S_ISDIR(mode):
        try:
            path.rmdir()
        except OSError as error:
            raise PreconditionError(f"{path} is not removed: {error}") from error
    elif stat.S_ISREG(mode):
        path.unlink()
    else:
        raise PreconditionError(f"{path} is {_kind(mode)} and is left alone")


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PreconditionError(f"{path} cannot be made: {error}") from error


def _mode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PreconditionError(f"{path} cannot be looked at: {error}") from error


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a directory",
        stat.S_IFREG: "a file",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")
