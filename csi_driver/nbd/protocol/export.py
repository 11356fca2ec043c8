# SPDX-License-Identifier: Apache-2.0
"""One export, and the one judge of every request made of it.

Nothing behind this module checks bounds again: librbd silently cuts a write
that crosses the end of an image and calls it a success (measured on 18.2.7), so
the verdict here is what keeps such a request away from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from csi_driver.domain.errors import SizeError
from csi_driver.nbd.protocol import constants as c

_SIGNED_LIMIT: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Export:
    """What a client is told and held to.

    `size` is the true size in bytes that requests are judged by.
    `announced_size` is what clients see: the same, unless a ceiling is given
    for clients that read the size only once and whose device grows later.
    Both have to be multiples of `minimum_block`; SizeError otherwise.
    `can_zero` offers WRITE_ZEROES, for clients that cannot do without it; it
    is carried out by writing zeros.
    """

    size: int
    name: str = ""
    ceiling: int | None = None
    read_only: bool = False
    can_flush: bool = True
    can_fua: bool = True
    can_multi_conn: bool = False
    can_zero: bool = False
    minimum_block: int = c.DEFAULT_BLOCK
    maximum_payload: int = c.MAXIMUM_PAYLOAD

    def __post_init__(self) -> None:
        block = self.minimum_block
        if block & (block - 1) or not 0 < block <= c.MAXIMUM_BLOCK:
            message = f"block size {block} is not a power of two up to 65536"
            raise SizeError(message)
        for size in (self.size, self.announced_size):
            if size % block or not 0 <= size <= _SIGNED_LIMIT:
                message = f"export size {size} is not a multiple of {block} bytes"
                raise SizeError(message)
        if self.announced_size < self.size:
            message = (
                f"export size {self.size} exceeds its ceiling {self.announced_size}"
            )
            raise SizeError(message)

    @property
    def announced_size(self) -> int:
        """Size in bytes as clients see it."""
        return self.size if self.ceiling is None else self.ceiling

    @property
    def flags(self) -> int:
        """Transmission flags for the handshake, or for netlink's SERVER_FLAGS."""
        flags = c.ExportFlag.HAS_FLAGS
        if self.read_only:
            flags |= c.ExportFlag.READ_ONLY
        if self.can_flush:
            flags |= c.ExportFlag.SEND_FLUSH
        if self.can_fua:
            flags |= c.ExportFlag.SEND_FUA
        if self.can_zero and not self.read_only:
            flags |= c.ExportFlag.SEND_WRITE_ZEROES
        if self.can_multi_conn:
            flags |= c.ExportFlag.CAN_MULTI_CONN
        return int(flags)


def verdict(  # noqa: PLR0911  # a table of refusals reads best as one
    export: Export, command: int, flags: int, offset: int, length: int
) -> int:
    """Return 0 if the request may be done, else the NBD error that answers it.

    `command` is any but DISC.  Rules and numbers follow proto.md; where a
    request breaks several, the first in this order counts: command, flags,
    shape (length zero or above the maximum payload), permission, alignment,
    bounds.
    """
    zeroing = command == c.CMD_WRITE_ZEROES and export.can_zero
    if flags and (
        flags & ~(c.CMD_FLAG_FUA | c.CMD_FLAG_NO_HOLE)
        or (flags & c.CMD_FLAG_FUA and not export.can_fua)
        or (flags & c.CMD_FLAG_NO_HOLE and not zeroing)
    ):
        return c.EINVAL
    if command == c.CMD_FLUSH:
        return c.OK if export.can_flush and not (offset or length) else c.EINVAL
    if command not in (c.CMD_READ, c.CMD_WRITE) and not zeroing:
        return c.EINVAL
    if not length or (length > export.maximum_payload and not zeroing):
        return c.EINVAL
    if command != c.CMD_READ and export.read_only:
        return c.EPERM
    if (offset | length) & (export.minimum_block - 1):
        return c.EINVAL
    if offset + length > export.size:
        return c.EINVAL if command == c.CMD_READ else c.ENOSPC
    return c.OK
