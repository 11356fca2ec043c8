# SPDX-License-Identifier: Apache-2.0
"""How a volume may be used: access modes, and as a device or a filesystem."""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from csi_driver.domain.errors import InvalidRequestError


class AccessMode(enum.Enum):
    """CSI's access modes under their own names."""

    SINGLE_NODE_WRITER = "SINGLE_NODE_WRITER"
    SINGLE_NODE_READER_ONLY = "SINGLE_NODE_READER_ONLY"
    MULTI_NODE_READER_ONLY = "MULTI_NODE_READER_ONLY"
    MULTI_NODE_SINGLE_WRITER = "MULTI_NODE_SINGLE_WRITER"
    MULTI_NODE_MULTI_WRITER = "MULTI_NODE_MULTI_WRITER"
    SINGLE_NODE_SINGLE_WRITER = "SINGLE_NODE_SINGLE_WRITER"
    SINGLE_NODE_MULTI_WRITER = "SINGLE_NODE_MULTI_WRITER"

    @property
    def read_only(self) -> bool:
        """True if nobody writes under this mode."""
        return self in _READERS

    @property
    def many_targets(self) -> bool:
        """True if one node may publish the volume at several paths at once."""
        return self in {
            AccessMode.SINGLE_NODE_MULTI_WRITER,
            AccessMode.MULTI_NODE_READER_ONLY,
        }


_READERS: Final = frozenset(
    {AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY},
)

_REFUSED: Final = {
    AccessMode.MULTI_NODE_MULTI_WRITER: (
        "ReadWriteMany is not offered: the image's exclusive lock, under which"
        " every write happens, belongs to one node at a time"
    ),
    AccessMode.MULTI_NODE_SINGLE_WRITER: (
        "one writer among readers on other nodes is not offered: the readers"
        " would read stale blocks of a filesystem that is being written"
    ),
}


class Filesystem(enum.Enum):
    """The filesystems the node makes and grows."""

    EXT4 = "ext4"
    XFS = "xfs"

    @property
    def smallest(self) -> int:
        """Bytes below which mkfs refuses the device or the result is useless."""
        return {Filesystem.EXT4: 1 << 20, Filesystem.XFS: 300 << 20}[self]


DEFAULT_FILESYSTEM: Final = Filesystem.EXT4


@dataclasses.dataclass(frozen=True, slots=True)
class Capability:
    """One VolumeCapability: a raw block device, or a mounted filesystem.

    `filesystem` is None when the request names none; `mount_flags` go to
    mount(8) as they are.
    """

    mode: AccessMode
    block: bool = False
    filesystem: Filesystem | None = None
    mount_flags: tuple[str, ...] = ()

    def refusal(self) -> str | None:
        """Return why this driver does not offer the mode, or None if it does."""
        return _REFUSED.get(self.mode)


def parse_filesystem(name: str) -> Filesystem | None:
    """Return the filesystem of that name, None for "".

    InvalidRequestError lists the known ones.
    """
    if not name:
        return None
    try:
        return Filesystem(name)
    except ValueError:
        known = ", ".join(each.value for each in Filesystem)
        message = f"filesystem {name!r} is not offered; known are {known}"
        raise InvalidRequestError(message) from None
