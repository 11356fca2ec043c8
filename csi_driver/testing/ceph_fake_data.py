# SPDX-License-Identifier: Apache-2.0
"""The bytes of one image of the fake, sparse and cut into objects as RBD does.

An object ends behind the last byte that was written to it; what lies beyond,
and every absent object, was never written.  A loaded handle has to know that,
since librbd shows such places as zeros without decrypting them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from csi_driver.domain.sizes import Striping


class RawData:
    """Raw bytes by raw offsets; reads fall through to a parent's snapshot."""

    def __init__(self, striping: Striping, parent: RawData | None = None) -> None:
        self._striping: Final = striping
        self._parent = parent
        self._objects: dict[int, bytearray] = {}

    def copy(self) -> RawData:
        """Return an independent copy, as a snapshot keeps it."""
        twin = RawData(self._striping, self._parent)
        twin._objects = {key: bytearray(data) for key, data in self._objects.items()}
        return twin

    @property
    def allocated(self) -> int:
        """Bytes that the objects take."""
        return sum(len(data) for data in self._objects.values())

    @property
    def objects(self) -> int:
        """Number of objects that exist."""
        return len(self._objects)

    def object(self, number: int) -> bytes:
        """Return one object's bytes, empty if it does not exist."""
        return bytes(self._objects.get(number, b""))

    def read(self, offset: int, length: int) -> bytes:
        """Return raw bytes; what was never written reads as zeros."""
        result = bytearray()
        for number, at, count in self._extents(offset, length):
            data = self._objects.get(number)
            if data is None and self._parent is not None:
                data = bytearray(self._parent.read(offset + len(result), count))
                at = 0  # noqa: PLW2901  # the parent answered for this piece alone
            piece = b"" if data is None else bytes(data[at : at + count])
            result += piece + bytes(count - len(piece))
        return bytes(result)

    def written(self, offset: int, length: int) -> bool:
        """Tell whether some byte of the range lies inside an object."""
        return any(
            len(self._objects.get(number, b"")) > at
            for number, at, _ in self._extents(offset, length)
        ) or (self._parent is not None and self._parent.written(offset, length))

    def write(self, offset: int, data: bytes) -> None:
        """Write raw bytes; the parent's object is copied up before."""
        done = 0
        for number, at, count in self._extents(offset, len(data)):
            target = self._objects.get(number)
            if target is None:
                target = self._objects[number] = self._copied_up(number)
            if len(target) < at:
                target.extend(bytes(at - len(target)))
            target[at : at + count] = data[done : done + count]
            done += count

    def _copied_up(self, number: int) -> bytearray:
        parent = self._parent
        return bytearray() if parent is None else bytearray(parent.object(number))

    def _extents(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Yield (object, offset in it, bytes) as Ceph's Striper cuts a range."""
        unit = self._striping.stripe_unit
        count = self._striping.stripe_count
        per_object = self._striping.object_size // unit
        end = offset + length
        while offset < end:
            block, inside = divmod(offset, unit)
            stripe, position = divmod(block, count)
            group, row = divmod(stripe, per_object)
            taken = min(unit - inside, end - offset)
            yield group * count + position, row * unit + inside, taken
            offset += taken
