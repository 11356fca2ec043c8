# SPDX-License-Identifier: Apache-2.0
"""Notices posted as Events of Kubernetes, by one thread beside the calls.

Nothing here delays or fails a call: notices wait in a short queue, and are
dropped, counted and logged where that is full or the API server does not take
them.  What an Event looks like is left to `event_objects`, how often one is
posted to `correlation`, whose it is to `claims`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Pod
from csi_driver.kube.claims import Claims
from csi_driver.kube.contract import EventWriter
from csi_driver.kube.correlation import Correlator
from csi_driver.kube.correlation import Series
from csi_driver.kube.event_objects import Occurrence
from csi_driver.kube.event_objects import Reporter
from csi_driver.kube.event_objects import clean
from csi_driver.kube.event_objects import event_change
from csi_driver.kube.event_objects import event_name
from csi_driver.kube.event_objects import event_object

MOST_WAITING: Final = 256
"""Notices in the queue.  A minute of an API server that does not answer."""

CLOSE_SECONDS: Final = 3.0
"""How long the end of a process waits for what is still to be posted."""

_COMPLAIN_EVERY: Final = 60.0
"""Seconds between two lines in the log about the same kind of loss."""

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class EventCounts:
    """What became of the notices so far; each has one fate.

    `posted` made an Event, `repeated` raised the count of one, `limited` came
    too often, `nameless` had no claim, `failed` were refused by
    the API server or never reached it, `dropped` found the queue full.
    """

    posted: int = 0
    repeated: int = 0
    limited: int = 0
    nameless: int = 0
    failed: int = 0
    dropped: int = 0


class Events:
    """Implements `domain.notices.Notices`; `start` and `close` belong together."""

    def __init__(
        self,
        writer: EventWriter,
        claims: Claims,
        reporter: Reporter,
        *,
        most_waiting: int = MOST_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._claims = claims
        self._reporter = reporter
        self._clock = clock
        self._waiting: queue.Queue[tuple[dt.datetime, Notice] | None]
        self._waiting = queue.Queue(most_waiting)
        self._correlator = Correlator()
        self._lock = threading.Lock()
        self._counts = EventCounts()
        self._complained: dict[str, float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    @property
    def counts(self) -> EventCounts:
        """What became of the notices so far."""
        with self._lock:
            return self._counts

    def start(self) -> None:
        """Begin to post."""
        self._thread.start()

    def tell(self, notice: Notice) -> None:
        """Take a notice to be posted; never waits, never raises."""
        if self._closing.is_set():
            self._lost("dropped", notice, "the process is ending")
            return
        try:
            self._waiting.put_nowait((dt.datetime.now(dt.UTC), notice))
        except queue.Full:
            self._lost("dropped", notice, "too many wait to be posted")

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Post what waits, but no longer than that; True if the thread has ended.

        A request that is under way goes on in its thread, which does not keep
        the process from ending.
        """
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then nobody waits for the first one
            self._waiting.put_nowait(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # -------------------------------------------------------------- the thread

    def _run(self) -> None:
        while (item := self._next()) is not None:
            when, notice = item
            try:
                self._post(when, notice)
            except DriverError as error:
                self._lost("failed", notice, str(error))
            except Exception as error:  # noqa: BLE001  # Events go on without it
                _log.error("posting an Event failed unforeseen", exc_info=error)
                self._add("failed")

    def _next(self) -> tuple[dt.datetime, Notice] | None:
        """Return what waits longest; None once all is posted after `close`."""
        if not self._closing.is_set():
            return self._waiting.get()
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    def _post(self, when: dt.datetime, notice: Notice) -> None:
        about = notice.about
        if not isinstance(about, Claim | Pod):
            found = self._claims.find(about)
            if found is None:
                self._add("nameless")
                return
            about = found
        seen = Occurrence(about, notice.what, clean(notice.message))
        now = self._clock()
        series = self._correlator.count(seen, when, now)
        if not self._correlator.admits(seen, now):
            self._add("limited")
            _log.debug("event limited", reason=notice.what.value, name=about.name)
            return
        if series.name and self._repeat(seen, series):
            self._add("repeated")
            return
        self._make(seen, series)
        self._add("posted")

    def _repeat(self, seen: Occurrence, series: Series) -> bool:
        """Raise the count of an Event; False if its time is over."""
        change = event_change(last=series.last, count=series.count)
        try:
            self._writer.change_event(seen.about.namespace, series.name, change)
        except NotFoundError:
            return False
        return True

    def _make(self, seen: Occurrence, series: Series) -> None:
        name = event_name(seen.about, series.last)
        event = event_object(
            name,
            seen,
            self._reporter,
            first=series.first,
            last=series.last,
            count=series.count,
        )
        try:
            self._writer.create_event(seen.about.namespace, event)
        except AlreadyExistsError:
            # Made by a try of which the answer was lost.
            _log.debug("event was there already", name=name)
        series.name = name

    # ---------------------------------------------------------------- details

    def _add(self, fate: str) -> None:
        with self._lock:
            present = getattr(self._counts, fate)
            self._counts = dataclasses.replace(self._counts, **{fate: present + 1})

    def _lost(self, fate: str, notice: Notice, reason: str) -> None:
        """Count a notice that nobody gets to see; say so once in a while."""
        self._add(fate)
        now = self._clock()
        with self._lock:
            last = self._complained.get(fate)
            if last is not None and now - last < _COMPLAIN_EVERY:
                return
            self._complained[fate] = now
        _log.warning(
            "an Event was not posted; more of them are not told for a minute",
            fate=fate,
            happening=notice.what.value,
            about=str(notice.about),
            reason=reason,
        )
