# SPDX-License-Identifier: Apache-2.0
"""What the connections of one server share, and the states they go through."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.nbd.backend import Backend
from csi_driver.nbd.buffers import SlotPool
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.stats import Counters

if TYPE_CHECKING:
    from csi_driver.nbd.connection import Connection
    from csi_driver.nbd.connection import Operation


@dataclass(slots=True)
class Shared:
    """What the connections of one server have in common.

    `fenced` is the protocol's error that answers everything once the backend
    has lost its cluster, 0 before.  `waiting` lists connections that found no
    memory, in the order in which they get some.  `now` is the loop's time in
    monotonic nanoseconds, taken once per turn.
    """

    backend: Backend[Operation]
    pool: SlotPool
    counters: Counters
    export: Export
    waiting: deque[Connection]
    quota: int
    fenced: int = 0
    now: int = 0


class State(enum.Enum):
    """Life of a connection."""

    OPEN = enum.auto()
    CLOSING = enum.auto()
    """Reads nothing more; finishes what is outstanding."""
    DEAD = enum.auto()
    """Socket closed; the backend may still work on its operations."""
