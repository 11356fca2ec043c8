# SPDX-License-Identifier: Apache-2.0
"""A bounded pool of buffers for payloads.

A slot holds one payload, at a page boundary, with room right in front of it for
the 16 bytes of a reply: a read is then answered from one piece of memory.  The
pool counts every byte it has mapped, used or kept for reuse, and never exceeds
its budget; who gets no slot waits.  Not thread-safe: it belongs to one loop.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

from csi_driver.nbd.protocol.constants import MAXIMUM_PAYLOAD
from csi_driver.nbd.protocol.errors import LocalProtocolError
from csi_driver.nbd.protocol.replies import REPLY_SIZE

PAGE: Final = mmap.PAGESIZE
HEADER_AT: Final = PAGE - REPLY_SIZE
BUDGET: Final = 64 * 1024 * 1024
KEPT: Final = 16 * 1024 * 1024
_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_CLASSES: Final = (
    *(4096 << shift for shift in range(0, 12, 2)),  # 4 KiB, 16 KiB, … 4 MiB
    16 * 1024 * 1024,
    MAXIMUM_PAYLOAD,
)


class Slot:
    """Memory for one payload of up to `capacity` bytes.

    `address` is where the payload begins, valid as long as the slot exists;
    `memory` is the whole slot, header page included; `payload(n)` a view of the
    first n bytes.  The memory goes back to the system with the last reference.
    """

    __slots__ = ("address", "capacity", "memory")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.memory = memoryview(mmap.mmap(-1, PAGE + capacity, flags=_PRIVATE))
        first = ctypes.c_char.from_buffer(self.memory)
        self.address = ctypes.addressof(first) + PAGE

    def payload(self, length: int) -> memoryview:
        """Return the first `length` bytes of the payload."""
        return self.memory[PAGE : PAGE + length]

    @property
    def cost(self) -> int:
        """Bytes that this slot takes out of the budget."""
        return PAGE + self.capacity


class SlotPool:
    """Slots of a few sizes, reused, within `budget` bytes in all.

    `budget` has to hold at least one slot of the largest size, so that every
    valid request can be served when nothing else is going on.
    """

    def __init__(self, budget: int = BUDGET, kept: int = KEPT) -> None:
        if budget < PAGE + _CLASSES[-1]:
            message = f"a buffer budget of {budget} bytes cannot hold one request"
            raise LocalProtocolError(message)
        self.budget = budget
        self.mapped = 0
        self.used = 0
        self._kept_limit = kept
        self._free: dict[int, list[Slot]] = {size: [] for size in _CLASSES}

    @staticmethod
    def cost_of(length: int) -> int:
        """Return the bytes that a slot for `length` bytes of payload takes."""
        return PAGE + _class_of(length)

    def acquire(self, length: int) -> Slot | None:
        """Return a slot for `length` bytes, or None when the budget is used up."""
        capacity = _class_of(length)
        free = self._free[capacity]
        if free:
            slot = free.pop()
            self.used += PAGE + capacity
            return slot
        cost = PAGE + capacity
        if self.used + cost > self.budget:
            return None
        if self.mapped + cost > self.budget:
            self._evict(self.mapped + cost - self.budget)
        slot = Slot(capacity)
        self.mapped += cost
        self.used += cost
        return slot

    def release(self, slot: Slot) -> None:
        """Take a slot back that nobody reads or writes any more."""
        cost = PAGE + slot.capacity
        self.used -= cost
        if self.mapped - self.used <= self._kept_limit:
            self._free[slot.capacity].append(slot)
        else:
            self.mapped -= cost

    def close(self) -> None:
        """Unmap what is kept; slots in use stay valid until they are dropped."""
        self._evict(self.mapped)

    def _evict(self, wanted: int) -> None:
        """Unmap kept slots, large ones first, until `wanted` bytes are free."""
        for capacity in reversed(_CLASSES):
            free = self._free[capacity]
            while free and wanted > 0:
                cost = free.pop().cost
                wanted -= cost
                self.mapped -= cost


def _class_of(length: int) -> int:
    for size in _CLASSES:
        if length <= size:
            return size
    message = f"no buffer holds {length} bytes"
    raise LocalProtocolError(message)
