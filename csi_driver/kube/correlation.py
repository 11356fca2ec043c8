# SPDX-License-Identifier: Apache-2.0
"""How often something is said: once, then with a growing count, and not too often.

kubelet repeats a failing stage for ever.  So what happens again within a while
adds to the Event that is there, as client-go's correlator does it, and of one
reason one object gets only so many requests; another reason is not silenced by
them.  Decisions only, for one thread; posting is left to `events`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import OrderedDict
from typing import Final

from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Pod
from csi_driver.kube.event_objects import Occurrence

WINDOW: Final = 600.0
"""Seconds of silence after which the same thing is a new Event."""

BURST: Final = 6
"""Requests about one object for one reason at once; two flattens make six."""

REFILL: Final = 60.0
"""Seconds until there is one more of them."""

_MOST: Final = 1024
"""Occurrences, and objects, that are remembered; the oldest are forgotten."""

type _Topic = tuple[Claim | Pod, Happening]


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
        self._buckets: OrderedDict[_Topic, _Bucket] = OrderedDict()

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

    def admits(self, seen: Occurrence, now: float) -> bool:
        """Tell whether one more request may be made about it, and count that one."""
        topic = seen.about, seen.what
        bucket = self._buckets.pop(topic, None) or _Bucket(BURST, now)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) / REFILL)
        bucket.at = now
        self._buckets[topic] = bucket
        _forget_oldest(self._buckets)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _forget_oldest[K, V](known: OrderedDict[K, V]) -> None:
    while len(known) > _MOST:
        known.popitem(last=False)
