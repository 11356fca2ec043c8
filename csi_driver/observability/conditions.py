# SPDX-License-Identifier: Apache-2.0
"""What has to hold for a process to be alive, or ready, and finding it out.

Whoever asks gets an answer within a bound.  A look that takes longer goes on, and
no second one is begun beside it: who asks meanwhile waits for the same outcome.
So a hang costs one thread, however often it is asked about.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Final

import structlog

from csi_driver.domain.errors import DriverError

LOOK_SECONDS: Final = 4.0
"""How long all conditions together are waited for."""

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a condition holds; `failure` is "" if it does."""

    name: str
    failure: str = ""

    def line(self) -> str:
        """Return `ok NAME` or `failed NAME: why`."""
        if not self.failure:
            return f"ok {self.name}"
        return f"failed {self.name}: {' '.join(self.failure.split())}"


class Condition:
    """One thing that has to hold; for any thread.

    `look` returns if it holds and raises a DriverError that says why it does not.
    """

    def __init__(self, name: str, look: Callable[[], None]) -> None:
        self.name = name
        self._look = look
        self._lock = threading.Lock()
        self._looking: Future[str] | None = None

    def begin(self) -> Future[str]:
        """Return what will be the outcome: "", or why it does not hold."""
        with self._lock:
            if self._looking is not None and not self._looking.done():
                return self._looking
            outcome: Future[str] = Future()
            self._looking = outcome
        threading.Thread(
            target=self._run, args=(outcome,), name=f"look {self.name}", daemon=True
        ).start()
        return outcome

    def _run(self, outcome: Future[str]) -> None:
        try:
            self._look()
        except DriverError as error:
            outcome.set_result(str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001  # told, and logged
            _log.error("a condition failed unforeseen", name=self.name, exc_info=error)
            kind = type(error).__name__
            outcome.set_result(f"an unforeseen {kind}: see this process's log")
        else:
            outcome.set_result("")


def judge(
    conditions: Iterable[Condition], seconds: float = LOOK_SECONDS
) -> list[Verdict]:
    """Look at all conditions at the same time; never longer than `seconds`."""
    begun = [(each.name, each.begin()) for each in conditions]
    until = time.monotonic() + seconds
    return [Verdict(name, _awaited(outcome, until, seconds)) for name, outcome in begun]


def _awaited(outcome: Future[str], until: float, seconds: float) -> str:
    try:
        return outcome.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        return f"no answer within {seconds:g} s"
