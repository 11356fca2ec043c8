# SPDX-License-Identifier: Apache-2.0
"""Received bytes that wait to be understood.

A fixed buffer that the socket writes into and the parsers read from, so that
small requests cost no allocation.  When it is full, nobody may receive: that is
how a slow server makes its client wait.
"""

from __future__ import annotations

from typing import Final

from csi_driver.nbd.protocol.errors import LocalProtocolError

CAPACITY: Final = 256 * 1024


class Inbox:
    """Bytes between `head` and `tail` of one fixed buffer.

    The parsers read `data` at `head` and call `consume`; both attributes are
    public for their sake alone.
    """

    __slots__ = ("_view", "data", "head", "tail")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.data = bytearray(capacity)
        self._view = memoryview(self.data)
        self.head = 0
        self.tail = 0

    def __len__(self) -> int:
        return self.tail - self.head

    def space(self) -> memoryview:
        """Return the room for new bytes; empty only when the inbox is full."""
        if self.head == self.tail:
            self.head = self.tail = 0
        elif self.head > len(self.data) // 2 or self.tail == len(self.data):
            size = self.tail - self.head
            self._view[:size] = self._view[self.head : self.tail]
            self.head, self.tail = 0, size
        return self._view[self.tail :]

    def commit(self, count: int) -> None:
        """Count `count` bytes of `space` as received."""
        if not 0 <= count <= len(self.data) - self.tail:
            message = f"{count} bytes do not fit into the inbox"
            raise LocalProtocolError(message)
        self.tail += count

    def feed(self, data: bytes | bytearray | memoryview) -> int:
        """Copy in as much of `data` as fits; return how many bytes that was."""
        space = self.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        self.tail += count
        return count

    def consume(self, count: int) -> None:
        """Forget the first `count` bytes."""
        if not 0 <= count <= self.tail - self.head:
            message = f"{count} bytes are not in the inbox"
            raise LocalProtocolError(message)
        self.head += count

    def discard(self, limit: int) -> int:
        """Forget up to `limit` bytes; return how many that was."""
        count = min(limit, self.tail - self.head)
        self.head += count
        return count

    def take(self, count: int) -> bytes:
        """Return and forget the first `count` bytes."""
        head = self.head
        self.consume(count)
        return bytes(self._view[head : head + count])

    def take_into(self, target: memoryview) -> int:
        """Move as many bytes as there are into `target`; return the count."""
        count = min(len(target), self.tail - self.head)
        target[:count] = self._view[self.head : self.head + count]
        self.head += count
        return count

    def leftover(self) -> bytes:
        """Return a copy of what was received and not yet understood."""
        return bytes(self._view[self.head : self.tail])
