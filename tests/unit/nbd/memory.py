# SPDX-License-Identifier: Apache-2.0
"""A backend in memory, and what waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from csi_driver.nbd.connection import Operation
from csi_driver.testing.backends import Fault
from csi_driver.testing.backends import FaultyBackend
from csi_driver.testing.backends import MemoryBackend

MIB = 1 << 20
SIZE = 64 * MIB


type Memory = MemoryBackend[Operation]


def memory(size: int = SIZE, *, read_only: bool = False) -> Memory:
    return MemoryBackend(size, read_only=read_only)


def faulty(*faults: Fault) -> FaultyBackend[Operation]:
    return FaultyBackend(MemoryBackend[int](SIZE), faults)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
