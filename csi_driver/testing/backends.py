# SPDX-License-Identifier: Apache-2.0
"""Backends of the NBD server for tests: memory, and faults around any other."""

from __future__ import annotations

import errno
import heapq
import mmap
import os
import random
import select
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from typing import Literal

from csi_driver.nbd.backend import Backend
from csi_driver.nbd.buffers import Slot

type Kind = Literal["read", "write", "flush"]


class MemoryBackend[Token]:
    """Blocks in anonymous memory, durable as long as the process lives.

    Results come in the order of submission, or shuffled if `seed` is given.
    `fence` makes it answer like an image whose client was put on the blocklist.
    """

    def __init__(
        self, size: int, *, read_only: bool = False, seed: int | None = None
    ) -> None:
        self.read_only = read_only
        self.can_flush = True
        self.can_fua = True
        self.can_multi_conn = True
        self.flushes = 0
        self.fua_writes = 0
        # Private: a shared anonymous mapping cannot grow, it faults (SIGBUS).
        self._memory = mmap.mmap(
            -1, max(size, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self._size = size
        self._fenced = False
        self._shuffle = None if seed is None else random.Random(seed)  # noqa: S311
        self._done: list[tuple[Token, int]] = []
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def size(self) -> int:
        """Return the size in bytes."""
        return self._size

    def resize(self, size: int) -> None:
        """Change the size in bytes; what is new reads as zeros."""
        self._memory.resize(max(size, mmap.PAGESIZE))
        self._size = size

    def contents(self) -> bytes:
        """Return a copy of everything stored."""
        return self._memory[: self._size]

    def fence(self) -> None:
        """Answer everything from now on with ESHUTDOWN."""
        self._fenced = True

    def fileno(self) -> int:
        """Return the descriptor that announces results."""
        return self._event

    def submit_read(self, token: Token, offset: int, length: int, slot: Slot) -> None:
        """Copy from memory into the slot."""
        data = self._memory[offset : min(offset + length, self._size)]
        slot.payload(len(data))[:] = data
        self._finish(token, len(data))

    def submit_write(
        self, token: Token, offset: int, length: int, slot: Slot, *, fua: bool
    ) -> None:
        """Copy from the slot into memory."""
        if self.read_only:
            self._finish(token, -errno.EROFS)
            return
        if not self._fenced:
            self._memory[offset : offset + length] = slot.payload(length)
            self.fua_writes += fua
        self._finish(token, 0)

    def submit_flush(self, token: Token) -> None:
        """Count a flush; there is nothing to do for it."""
        self.flushes += 1
        self._finish(token, 0)

    def completions(self) -> list[tuple[Token, int]]:
        """Return what is done."""
        done, self._done = self._done, []
        if done:
            os.eventfd_read(self._event)
        if self._shuffle is not None:
            self._shuffle.shuffle(done)
        return done

    def close(self) -> None:
        """Forget everything."""
        os.close(self._event)
        self._memory.close()

    def _finish(self, token: Token, result: int) -> None:
        self._done.append((token, -errno.ESHUTDOWN if self._fenced else result))
        os.eventfd_write(self._event, 1)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and when.

    Hits every `every`-th operation of `kind` (None: of any kind), the first
    `skip` ones apart.  `error` is a positive errno, delivered without the
    operation being done; `short` cuts that many bytes off a read's result;
    `delay` holds the result back for that many seconds.
    """

    kind: Kind | None = None
    every: int = 1
    skip: int = 0
    error: int = 0
    short: int = 0
    delay: float = 0.0


class FaultyBackend[Token]:
    """Another backend with faults in between."""

    def __init__(self, inner: Backend[int], faults: Sequence[Fault] = ()) -> None:
        self._inner = inner
        self._faults = tuple(faults)
        self._seen = [0] * len(self._faults)
        self._numbers = 0
        self._running: dict[int, tuple[Token, Fault]] = {}
        self._late: list[tuple[float, int, int]] = []
        self._timer = os.timerfd_create(
            time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC
        )
        self._poll = select.epoll()
        self._poll.register(inner.fileno(), select.EPOLLIN)
        self._poll.register(self._timer, select.EPOLLIN)

    @property
    def read_only(self) -> bool:
        """As the inner backend says."""
        return self._inner.read_only

    @property
    def can_flush(self) -> bool:
        """As the inner backend says."""
        return self._inner.can_flush

    @property
    def can_fua(self) -> bool:
        """As the inner backend says."""
        return self._inner.can_fua

    @property
    def can_multi_conn(self) -> bool:
        """As the inner backend says."""
        return self._inner.can_multi_conn

    def size(self) -> int:
        """As the inner backend says."""
        return self._inner.size()

    def fileno(self) -> int:
        """Return a descriptor that covers the inner one and the timer."""
        return self._poll.fileno()

    def submit_read(self, token: Token, offset: int, length: int, slot: Slot) -> None:
        """Read, unless a fault forbids it."""
        self._begin(
            "read",
            token,
            lambda number: self._inner.submit_read(number, offset, length, slot),
        )

    def submit_write(
        self, token: Token, offset: int, length: int, slot: Slot, *, fua: bool
    ) -> None:
        """Write, unless a fault forbids it."""
        self._begin(
            "write",
            token,
            lambda number: self._inner.submit_write(
                number, offset, length, slot, fua=fua
            ),
        )

    def submit_flush(self, token: Token) -> None:
        """Flush, unless a fault forbids it."""
        self._begin("flush", token, self._inner.submit_flush)

    def completions(self) -> list[tuple[Token, int]]:
        """Return what is done and due."""
        now = time.monotonic()
        for number, result in self._inner.completions():
            _, fault = self._running[number]
            heapq.heappush(self._late, (now + fault.delay, number, result))
        due: list[tuple[Token, int]] = []
        while self._late and self._late[0][0] <= now:
            _, number, result = heapq.heappop(self._late)
            token, fault = self._running.pop(number)
            due.append((token, result - fault.short if result > 0 else result))
        self._arm(now)
        return due

    def close(self) -> None:
        """Close the inner backend too."""
        self._poll.close()
        os.close(self._timer)
        self._inner.close()

    def _begin(self, kind: Kind, token: Token, submit: Callable[[int], None]) -> None:
        fault = self._choose(kind)
        self._numbers += 1
        number = self._numbers
        self._running[number] = (token, fault)
        if fault.error:
            now = time.monotonic()
            heapq.heappush(self._late, (now + fault.delay, number, -fault.error))
            self._arm(now)
        else:
            submit(number)

    def _choose(self, kind: Kind) -> Fault:
        chosen = _NO_FAULT
        for index, fault in enumerate(self._faults):
            if fault.kind not in {None, kind}:
                continue
            self._seen[index] += 1
            counted = self._seen[index] - fault.skip
            if counted > 0 and counted % fault.every == 0 and chosen is _NO_FAULT:
                chosen = fault
        return chosen

    def _arm(self, now: float) -> None:
        """Set the timer to the next result that is due, or off."""
        # Zero would disarm the timer, so what is overdue gets the least time.
        due = max(self._late[0][0] - now, 1e-6) if self._late else 0.0
        os.timerfd_settime(self._timer, initial=due)


_NO_FAULT: Final = Fault()
