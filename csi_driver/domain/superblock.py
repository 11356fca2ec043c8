# SPDX-License-Identifier: Apache-2.0
"""ext4's and xfs's superblocks, as far as size and identity need them.  Pure.

Reading the bytes is left to others.  Layouts: Linux fs/ext4/ext4.h
(little-endian, at byte 1024) and fs/xfs/libxfs/xfs_format.h (big-endian, at 0).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final
from uuid import UUID

HEAD_BYTES: Final = 4096

_EXT4_START: Final = 1024
_EXT4_MAGIC: Final = 0xEF53
_EXT4_64BIT: Final = 0x80
_EXT4_RECOVER: Final = 0x4
_EXT4_SMALLEST_LAST_GROUP: Final = 50
_XFS_MAGIC: Final = b"XFSB"


@dataclass(frozen=True, slots=True)
class Superblock:
    """A filesystem on a device: its own size in bytes, and its UUID.

    `smallest`: bytes of the smallest piece that it reads and writes; the kernel
    mounts it on devices whose sectors are no larger.
    `slack`: bytes at the end of the device that the filesystem leaves unused
    when it ends as it does now, because they are too few for another group.
    `unclean`: an ext4's journal waits to be replayed, and may hold another size;
    of an xfs its superblock does not tell.
    """

    filesystem: str
    size: int
    uuid: UUID
    smallest: int
    slack: int
    unclean: bool = False

    def fills(self, device_size: int) -> bool:
        """Say whether growing could gain nothing on a device of that size."""
        return device_size - self.size <= self.slack


def parse(head: bytes) -> Superblock | None:
    """Read the first 4096 bytes of a device; None if they are neither's."""
    if head[:4] == _XFS_MAGIC and len(head) >= HEAD_BYTES:
        return _xfs(head)
    if len(head) >= HEAD_BYTES:
        return _ext4(head[_EXT4_START:])
    return None


def _u16(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", data, offset)[0])


def _u32(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])


def _xfs(head: bytes) -> Superblock:
    (block_size,) = struct.unpack_from(">I", head, 4)
    (blocks,) = struct.unpack_from(">Q", head, 8)
    # Less than 64 blocks are too few for an allocation group.
    slack = 63 * int(block_size)
    size = int(block_size) * int(blocks)
    (sector,) = struct.unpack_from(">H", head, 102)
    return Superblock("xfs", size, UUID(bytes=head[32:48]), int(sector), slack)


def _ext4(data: bytes) -> Superblock | None:
    if _u16(data, 0x38) != _EXT4_MAGIC:
        return None
    block_size = 1024 << _u32(data, 0x18)
    incompatible = _u32(data, 0x60)
    wide = bool(incompatible & _EXT4_64BIT)
    blocks = _u32(data, 0x04) | (_u32(data, 0x150) << 32 if wide else 0)
    uuid = UUID(bytes=data[0x68:0x78])
    slack = _ext4_slack(data, block_size, blocks, wide=wide)
    unclean = bool(incompatible & _EXT4_RECOVER)
    return Superblock("ext4", blocks * block_size, uuid, block_size, slack, unclean)


def _ext4_slack(data: bytes, block_size: int, blocks: int, *, wide: bool) -> int:
    """Return the bytes that resize2fs leaves unused.

    A last group needs room for more than its own tables.  A filesystem that
    ends inside a group can always grow.
    """
    per_group = _u32(data, 0x20)
    if per_group == 0 or (blocks - _u32(data, 0x14)) % per_group:
        return block_size - 1
    inode_bytes = _u32(data, 0x28) * _u16(data, 0x58)
    tables = -(-inode_bytes // block_size) + 2
    descriptor = _u16(data, 0xFE) if wide else 32
    groups = -(-blocks // per_group)
    descriptors = -(-groups * max(descriptor, 32) // block_size) + _u16(data, 0xCE) + 1
    return (tables + descriptors + _EXT4_SMALLEST_LAST_GROUP) * block_size - 1
