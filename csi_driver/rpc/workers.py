# SPDX-License-Identifier: Apache-2.0
"""Threads that carry the work of calls, so that a call can give up waiting.

librbd calls cannot be cancelled.  When a call's time is over its caller gets
an answer, while the work goes on in its thread; what the call holds (the guard
of its volume) is given back only when the work has really ended.  Work that
was given up counts as stuck, and with too much of it nothing new is begun.
"""

from __future__ import annotations

import contextvars
import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

import structlog

from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc.recorder import NoRecorder
from csi_driver.rpc.recorder import Recorder
from csi_driver.rpc.status import CallerGoneError
from csi_driver.rpc.status import DeadlineError

MOST_RUNNING: Final = 16
"""Pieces of work at the same time, each of which may need 64 MiB for its KDF;
more calls wait for their turn."""

MOST_STUCK: Final = 8
"""Pieces of given-up work beyond which new calls are refused."""

_log = structlog.get_logger(__name__)


class Patience:
    """How long a call waits: a time span, ended early if the caller leaves."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds
        self._event = threading.Event()
        self._gone = False

    def remaining(self) -> float:
        """Return the seconds left, 0 when there are none."""
        return max(0.0, self._until - time.monotonic())

    def caller_left(self) -> None:
        """End the waiting: nobody is there to be answered."""
        self._gone = True
        self._event.set()

    def work_ended(self) -> None:
        """End the waiting: there is an outcome."""
        self._event.set()

    def wait(self) -> None:
        """Wait for either, but not longer than the time span."""
        self._event.wait(self.remaining())

    @property
    def gone(self) -> bool:
        """True when the caller has left."""
        return self._gone


@dataclasses.dataclass(slots=True, eq=False)
class _Job[T]:
    """One piece of work and what is known about it; guarded by Workers' lock."""

    title: str
    work: Callable[[], T]
    ended: Callable[[], None]
    patience: Patience
    outcome: Future[T] = dataclasses.field(default_factory=Future)
    given_up: bool = False
    finished: bool = False


class Workers:
    """A bounded number of threads, each carrying one piece of work.

    The threads are daemons: work stuck in a librbd call must not keep the
    process from ending.
    """

    def __init__(
        self,
        *,
        most_running: int = MOST_RUNNING,
        most_stuck: int = MOST_STUCK,
        recorder: Recorder | None = None,
    ) -> None:
        self._most_running = most_running
        self._most_stuck = most_stuck
        self._recorder = recorder or NoRecorder()
        self._changed = threading.Condition()
        self._running = 0
        self._stuck = 0

    @property
    def running(self) -> int:
        """How much work is going on, stuck work included."""
        return self._running

    def run[T](
        self,
        title: str,
        work: Callable[[], T],
        *,
        patience: Patience,
        ended: Callable[[], None],
    ) -> T:
        """Do the work in a thread and return or raise its outcome.

        `ended` is called exactly once: when the work has ended, before the
        outcome is handed over, or at once if the work is never begun.
        DeadlineError or CallerGoneError when waiting was given up,
        UnavailableError when too much work is stuck.
        """
        try:
            self._admit(title, patience)
        except BaseException:
            ended()
            raise
        job = _Job(title, work, ended, patience)
        # Log lines of the work carry the call's context.
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run,
            args=(self._carry, job),
            name=title,
            daemon=True,
        ).start()
        patience.wait()
        return self._outcome(job)

    def _admit(self, title: str, patience: Patience) -> None:
        with self._changed:
            while True:
                if self._stuck >= self._most_stuck:
                    message = (
                        f"{self._stuck} calls are stuck in Ceph and {title} was not"
                        " begun: look at the cluster's health"
                    )
                    raise UnavailableError(message)
                if patience.gone:
                    message = f"the caller left before {title} was begun"
                    raise CallerGoneError(message)
                if self._running < self._most_running and patience.remaining():
                    self._running += 1
                    return
                if not self._changed.wait(patience.remaining()):
                    message = (
                        f"{title} was not begun within {patience.seconds:.0f} s:"
                        f" {self._running} other calls are at work"
                    )
                    raise DeadlineError(message)

    def _carry[T](self, job: _Job[T]) -> None:
        failure: BaseException | None = None
        result: T | None = None
        try:
            result = job.work()
        except BaseException as error:  # noqa: BLE001  # handed to the waiting call
            failure = error
        # The guard first: who has read the answer may call again at once.
        job.ended()
        with self._changed:
            job.finished = True
            self._running -= 1
            if job.given_up:
                self._stuck -= 1
                self._recorder.stuck(self._stuck)
            self._changed.notify_all()
        if job.given_up:
            _log.warning(
                "given-up work has ended", work=job.title, error=_text(failure)
            )
        if failure is None:
            job.outcome.set_result(result)  # type: ignore[arg-type]  # T was returned
        else:
            job.outcome.set_exception(failure)
        job.patience.work_ended()

    def _outcome[T](self, job: _Job[T]) -> T:
        with self._changed:
            if not job.finished:
                job.given_up = True
                self._stuck += 1
                self._recorder.stuck(self._stuck)
                self._changed.notify_all()
        if not job.given_up:
            return job.outcome.result()
        if job.patience.gone:
            message = f"the caller left; {job.title} goes on"
            raise CallerGoneError(message)
        message = (
            f"{job.title} has not ended within {job.patience.seconds:.0f} s; it goes"
            " on, and a repeated call will find what it did"
        )
        raise DeadlineError(message)


def _text(failure: BaseException | None) -> str | None:
    return None if failure is None else type(failure).__name__
