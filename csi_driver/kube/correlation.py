# SPDX-License-Identifier: Apache-2.0
"""How often something is said: once, then with a growing count, and not too often.

kubelet repeats a failing stage for ever.  So what happens again within a while
adds to the Event that is there, and one object gets only so many requests, as
client-go's correlator does it.  Decisions only, for one thread; posting is left
to `events`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import OrderedDict
from typing import Final

from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Pod
from csi_driver.kube.event_objects import Occurrence

WINDOW: Final = 600.0
"""Seconds of silence after which the same thing is a new Event."""

BURST: Final = 10
"""Requests about one object at once; a flatten from start to end makes five."""

REFILL: Final = 60.0
"""Seconds until one object gets one more request."""

_MOST: Final = 1024
"""Occurrences, and objects, that are remembered; the oldest are forgotten."""


@dataclasses.dataclass(slots=True)
class Series:
    """An occurrence that goes on; `name` is its Event's, "" before there is one."""

    first: dt.datetime
    last: dt.datetime
    count: int = 0
    name: str = ""


@dataclasses.dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Correlator:
    """What was said of late.  Times are seconds of a clock that only goes forward."""

    def __init__(self) -> None:
        self._series: OrderedDict[Occurrence, tuple[Series, float]] = OrderedDict()
        self._buckets: OrderedDict[Claim | Pod, _Bucket] = OrderedDict()

    def count(self, seen: Occurrence, when: dt.datetime, now: float) -> Series:
        """Return the series that an occurrence belongs to, with it counted."""
        known = self._series.pop(seen, None)
        series = Series(when, when)
        if known is not None and now - known[1] <= WINDOW:
            series = known[0]
        series.count += 1
        series.last = max(series.last, when)
        self._series[seen] = series, now
        _forget_oldest(self._series)
        return series

    def admits(self, about: Claim | Pod, now: float) -> bool:
        """Tell whether one more request may be made about an object; takes it."""
        bucket = self._buckets.pop(about, None) or _Bucket(BURST, now)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) / REFILL)
        bucket.at = now
        self._buckets[about] = bucket
        _forget_oldest(self._buckets)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _forget_oldest[K, V](known: OrderedDict[K, V]) -> None:
    while len(known) > _MOST:
        known.popitem(last=False)
