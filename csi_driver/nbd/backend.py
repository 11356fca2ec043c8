# SPDX-License-Identifier: Apache-2.0
"""The contract between the server and what stores the blocks.

A backend takes requests and delivers their results later, through a pollable
descriptor, to the loop that asked: no callbacks, no threads that the server
would have to know of.  `tests/contract/nbd` is the contract as a test suite; the
memory backend, the fault wrappers and librbd all pass it.
"""

from __future__ import annotations

from typing import Protocol

from csi_driver.nbd.buffers import Slot


class Backend[Token](Protocol):
    """One open image.  Every method is called from one thread, the loop's.

    Offsets and lengths are effective bytes and have been judged: in bounds,
    aligned, not a write to a read-only export.  A submitted token comes back
    from `completions` exactly once, in any order; until then the backend holds
    the token, and the token's owner leaves the slot alone.  Nothing is raised
    for a failed request: it comes back with a negative errno.
    """

    @property
    def read_only(self) -> bool:
        """Whether writes are out of the question."""
        ...

    @property
    def can_flush(self) -> bool:
        """Whether `submit_flush` makes completed writes durable."""
        ...

    @property
    def can_fua(self) -> bool:
        """Whether `fua` of `submit_write` is honoured."""
        ...

    @property
    def can_multi_conn(self) -> bool:
        """Whether a flush covers the writes of all connections."""
        ...

    def size(self) -> int:
        """Return the size in (effective) bytes as it is now."""
        ...

    def fileno(self) -> int:
        """Return a descriptor that polls readable while results wait."""
        ...

    def submit_read(self, token: Token, offset: int, length: int, slot: Slot) -> None:
        """Fill the slot's payload; the result is the number of bytes read."""
        ...

    def submit_write(
        self, token: Token, offset: int, length: int, slot: Slot, *, fua: bool
    ) -> None:
        """Store the slot's payload; the result is 0.

        With `fua` the result comes only when the data is durable.
        """
        ...

    def submit_flush(self, token: Token) -> None:
        """Make every write that was completed before durable; the result is 0."""
        ...

    def completions(self) -> list[tuple[Token, int]]:
        """Return what has finished since the last call, with its result.

        The result is a byte count, 0, or a negative errno.  Never blocks.
        """
        ...

    def close(self) -> None:
        """Release the image; requests still running have ended afterwards."""
        ...
