# SPDX-License-Identifier: Apache-2.0
"""The bytes of one image of the fake, sparse and cut into objects as RBD does.

An object ends behind the last byte that was written to it, and may have holes
before.  An absent object was never written; an empty one hides its parent's.
What shows in such places is left to `ceph_fake_layers`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

from csi_driver.domain.sizes import Striping

BLOCK: Final = 4096
"""Bytes that a hole has at least; it begins and ends at multiples of them."""


@dataclasses.dataclass(eq=False, slots=True)
class _Object:
    data: bytearray = dataclasses.field(default_factory=bytearray)
    blocks: set[int] = dataclasses.field(default_factory=set)


class RawData:
    """The objects of one image or snapshot, by raw offsets."""

    def __init__(self, striping: Striping) -> None:
        self._striping: Final = striping
        self._objects: dict[int, _Object] = {}

    def copy(self) -> RawData:
        """Return an independent copy, as a snapshot keeps it."""
        twin = RawData(self._striping)
        twin._objects = {
            number: _Object(bytearray(each.data), set(each.blocks))
            for number, each in self._objects.items()
        }
        return twin

    @property
    def allocated(self) -> int:
        """Bytes that the objects take."""
        return sum(len(each.data) for each in self._objects.values())

    @property
    def objects(self) -> int:
        """Number of objects that exist."""
        return len(self._objects)

    def object(self, number: int) -> bytearray | None:
        """Return one object's bytes, None if it does not exist."""
        found = self._objects.get(number)
        return None if found is None else found.data

    def blocks(self, number: int) -> list[int]:
        """Return which blocks of an object were written, in order."""
        return sorted(self._objects[number].blocks)

    def make_empty(self, number: int) -> None:
        """Make an object without bytes, as discarding a clone's object does."""
        self._objects[number] = _Object()

    def read(self, offset: int, length: int) -> bytes:
        """Return raw bytes; what was never written reads as zeros."""
        result = bytearray()
        for number, at, count in self.extents(offset, length):
            data = self.object(number) or b""
            piece = data[at : at + count]
            result += piece + bytes(count - len(piece))
        return bytes(result)

    def write(self, offset: int, data: bytes) -> None:
        """Write raw bytes; copying up what a parent holds has to come first."""
        done = 0
        for number, at, count in self.extents(offset, len(data)):
            target = self._objects.setdefault(number, _Object())
            if len(target.data) < at:
                target.data.extend(bytes(at - len(target.data)))
            target.data[at : at + count] = data[done : done + count]
            target.blocks.update(range(at // BLOCK, -(-(at + count) // BLOCK)))
            done += count

    def truncate(self, size: int) -> None:
        """Forget what lies behind `size` raw bytes."""
        for number, target in list(self._objects.items()):
            kept = sum(
                max(0, min(count, size - offset))
                for offset, _, count in self.ranges(number)
            )
            if not kept:
                del self._objects[number]
                continue
            del target.data[kept:]
            target.blocks = {block for block in target.blocks if block * BLOCK < kept}

    def count_in(self, size: int) -> int:
        """Return how many objects so many raw bytes are spread over."""
        return -(-size // self._striping.period) * self._striping.stripe_count

    def ranges(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Yield (raw offset, offset in the object, bytes) of one object."""
        unit = self._striping.stripe_unit
        count = self._striping.stripe_count
        rows = self._striping.object_size // unit
        group, position = divmod(number, count)
        for row in range(rows):
            yield ((group * rows + row) * count + position) * unit, row * unit, unit

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
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
