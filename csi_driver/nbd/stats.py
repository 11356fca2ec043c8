# SPDX-License-Identifier: Apache-2.0
"""Counters of one export, cheap enough for every request.

The loop adds to plain integers; `snapshot` may be called from any thread, and
what it shows is at most one request behind itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from typing import Final

LATENCY_BUCKETS: Final = 28


@dataclass(frozen=True, slots=True)
class OperationStats:
    """One kind of operation since the server was made.

    `latency_seconds` is the sum over all; bucket n of `latency_histogram`
    counts the operations that took less than 2**n microseconds and not less
    than half of that (the last bucket: everything slower).
    """

    count: int
    bytes: int
    errors: int
    latency_seconds: float
    latency_histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What one server has done and what it is doing now."""

    reads: OperationStats
    writes: OperationStats
    flushes: OperationStats
    rejected: int
    in_flight: int
    connections: int
    buffers_used: int
    buffers_mapped: int
    fenced: bool


@dataclass(slots=True)
class OperationCounter:
    """The live form of OperationStats; latency in nanoseconds."""

    count: int = 0
    bytes: int = 0
    errors: int = 0
    nanoseconds: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * LATENCY_BUCKETS)

    def add(self, size: int, nanoseconds: int, *, failed: bool) -> None:
        """Count one finished operation of `size` bytes."""
        self.count += 1
        if failed:
            self.errors += 1
        else:
            self.bytes += size
        self.nanoseconds += nanoseconds
        bucket = (nanoseconds // 1000).bit_length()
        self.histogram[min(bucket, LATENCY_BUCKETS - 1)] += 1

    def snapshot(self) -> OperationStats:
        """Return the present values."""
        return OperationStats(
            self.count,
            self.bytes,
            self.errors,
            self.nanoseconds / 1e9,
            tuple(self.histogram),
        )


@dataclass(slots=True)
class Counters:
    """All counters of one server."""

    reads: OperationCounter = field(default_factory=OperationCounter)
    writes: OperationCounter = field(default_factory=OperationCounter)
    flushes: OperationCounter = field(default_factory=OperationCounter)
    rejected: int = 0
    in_flight: int = 0
