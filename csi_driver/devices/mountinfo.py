# SPDX-License-Identifier: Apache-2.0
"""The kernel's list of mounts, parsed and asked.  Pure, apart from reading it.

Changing mounts is left to `mounts`.  Format: proc(5), /proc/PID/mountinfo.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csi_driver.domain.errors import InternalError

SELF: Final = Path("/proc/self/mountinfo")

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
_FIXED_FIELDS: Final = 6
_TAIL_FIELDS: Final = 3


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo.

    `numbers` are the (major, minor) of the filesystem's device; `root` is the
    path inside that filesystem which is seen at `mount_point`; `options` are
    the mount's own, `super_options` the filesystem's.  `propagation` are its
    optional fields, such as `shared:7` or `master:3`; none for a private mount.
    """

    identifier: int
    parent: int
    numbers: tuple[int, int]
    root: str
    mount_point: str
    options: tuple[str, ...]
    filesystem: str
    source: str
    super_options: tuple[str, ...]
    propagation: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """True if mounts made below it are seen by those who share it."""
        return any(each.startswith("shared:") for each in self.propagation)

    @property
    def read_only(self) -> bool:
        """True if the mount or its filesystem refuses writes."""
        return "ro" in self.options or "ro" in self.super_options

    def describe(self) -> str:
        """Say in a few words what is mounted, for a message."""
        inside = "" if self.root == "/" else f", its {self.root}"
        mode = "read-only" if self.read_only else "writable"
        return f"{self.filesystem} of {self.source}{inside}, {mode}"


def unescape(field: bytes) -> str:
    """Undo the octal escapes of space, tab, newline and backslash."""
    plain = _ESCAPE.sub(lambda match: bytes([int(match.group(1), 8) & 0xFF]), field)
    return os.fsdecode(plain)


def parse_line(line: bytes) -> Mount:
    """Parse one line; InternalError if it is none of mountinfo's."""
    fields = line.split(b" ")
    try:
        separator = fields.index(b"-", _FIXED_FIELDS)
        filesystem, source, super_options = fields[separator + 1 :][:_TAIL_FIELDS]
        major, _, minor = fields[2].partition(b":")
        return Mount(
            identifier=int(fields[0]),
            parent=int(fields[1]),
            numbers=(int(major), int(minor)),
            root=unescape(fields[3]),
            mount_point=unescape(fields[4]),
            options=tuple(unescape(fields[5]).split(",")),
            filesystem=unescape(filesystem),
            source=unescape(source),
            super_options=tuple(unescape(super_options).split(",")),
            propagation=tuple(map(unescape, fields[_FIXED_FIELDS:separator])),
        )
    except (IndexError, ValueError) as error:
        raise InternalError(f"a line of mountinfo is malformed: {line!r}") from error


def parse(data: bytes) -> tuple[Mount, ...]:
    """Parse a whole mountinfo file, in its order."""
    return tuple(parse_line(line) for line in data.split(b"\n") if line)


def read_mounts(path: Path = SELF) -> tuple[Mount, ...]:
    """Return the mounts of this process's mount namespace."""
    return parse(path.read_bytes())


def canonical(path: Path) -> str:
    """Return a path as mountinfo shows it, without following its last part.

    The parent is resolved, the last component is not: looking through a mount
    whose server is dead would hang or fail.
    """
    return str(path.parent.resolve() / path.name)


def at(mounts: Sequence[Mount], path: Path) -> tuple[Mount, ...]:
    """Return the mounts exactly at a path, the lowest first."""
    wanted = canonical(path)
    return _stacked([mount for mount in mounts if mount.mount_point == wanted])


def _stacked(found: list[Mount]) -> tuple[Mount, ...]:
    """Order mounts of one path by who lies on whom."""
    identifiers = {mount.identifier for mount in found}
    below = [mount for mount in found if mount.parent not in identifiers]
    ordered: list[Mount] = []
    while below:
        ordered.extend(below)
        on = {mount.identifier for mount in below}
        below = [mount for mount in found if mount.parent in on]
    return tuple(ordered)


def of_device(mounts: Sequence[Mount], numbers: tuple[int, int]) -> tuple[Mount, ...]:
    """Return the mounts of a device's filesystem, bind mounts included."""
    return tuple(mount for mount in mounts if mount.numbers == numbers)


def holding(mounts: Sequence[Mount], path: Path) -> tuple[Mount, str] | None:
    """Return the mount a path lies in, and the path inside its filesystem.

    This is what a bind mount of that path has as device and `root`.
    """
    wanted = canonical(path)
    best: Mount | None = None
    for mount in mounts:
        prefix = mount.mount_point.rstrip("/") + "/"
        inside = wanted == mount.mount_point or wanted.startswith(prefix)
        if inside and (best is None or len(mount.mount_point) >= len(best.mount_point)):
            best = mount
    if best is None:
        return None
    rest = os.path.relpath(wanted, best.mount_point)
    return best, os.path.normpath(os.path.join(best.root, rest))  # noqa: PTH118
