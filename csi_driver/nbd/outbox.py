# SPDX-License-Identifier: Apache-2.0
"""Replies on their way to one client."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from csi_driver.nbd.buffers import Slot

_PIECES_PER_SEND: Final = 256  # the kernel takes 1024 (IOV_MAX)

type Release = Callable[[Slot], None]


class Outbox:
    """Pieces to send, in order, each with the slot whose memory it is.

    `release` gets a slot when its piece is sent or given up.  `size` is what
    waits, in bytes; `len` counts the pieces.
    """

    __slots__ = ("_pieces", "_release", "size")

    def __init__(self, release: Release) -> None:
        self._pieces: deque[tuple[bytes | memoryview, Slot | None]] = deque()
        self._release = release
        self.size = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def put(self, data: bytes | memoryview, slot: Slot | None = None) -> None:
        """Add a piece at the end."""
        self._pieces.append((data, slot))
        self.size += len(data)

    def send(self, sock: socket.socket) -> None:
        """Send until nothing is left or the socket takes no more; OSError passes."""
        pieces = self._pieces
        while pieces:
            batch = [data for data, _ in islice(pieces, _PIECES_PER_SEND)]
            try:
                sent = sock.sendmsg(batch)
            except BlockingIOError:
                return
            self.size -= sent
            while sent:
                data, slot = pieces[0]
                if sent < len(data):
                    pieces[0] = (memoryview(data)[sent:], slot)
                    break
                sent -= len(data)
                pieces.popleft()
                if slot is not None:
                    self._release(slot)

    def clear(self) -> None:
        """Give up everything."""
        while self._pieces:
            _, slot = self._pieces.popleft()
            if slot is not None:
                self._release(slot)
        self.size = 0
