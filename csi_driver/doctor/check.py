# SPDX-License-Identifier: Apache-2.0
"""One thing that was looked at, and how looking is kept from hanging.

An examination yields checks.  What it raises becomes a failed check, and one that
does not end in time is left behind: calls into librados cannot be cancelled.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import Final
from typing import Self

from csi_driver.domain import json_fields as read
from csi_driver.domain.errors import DriverError

PATIENCE: Final = 20.0
"""Seconds for one examination; connecting to Ceph alone may take 8."""


class Status(enum.StrEnum):
    """What a check came to; a warning is not in order and may be meant so."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One result: `name` is lasting, `subject` what exactly was looked at.

    `remedy` says what to do, "" where nothing has to be done or `found` says it.
    """

    name: str
    subject: str
    status: Status
    found: str
    remedy: str = ""

    def to_json_object(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "check": self.name,
            "subject": self.subject,
            "status": self.status.value,
            "found": self.found,
            "remedy": self.remedy or None,
        }

    @classmethod
    def from_json_object(cls, fields: Any) -> Self:
        """Read the JSON form; KeyError, TypeError or ValueError if it is another."""
        return cls(
            name=read.string(fields, "check"),
            subject=read.string(fields, "subject"),
            status=Status(read.string(fields, "status")),
            found=read.string(fields, "found"),
            remedy="" if fields["remedy"] is None else read.string(fields, "remedy"),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Topic:
    """What is being looked at; makes its checks."""

    name: str
    subject: str = ""

    def ok(self, found: str) -> Check:
        """Return that it is in order."""
        return Check(self.name, self.subject, Status.OK, found)

    def warning(self, found: str, remedy: str = "") -> Check:
        """Return that it is not in order, and what still works or does not."""
        return Check(self.name, self.subject, Status.WARNING, found, remedy)

    def failed(self, found: str, remedy: str = "") -> Check:
        """Return that the driver cannot work like this."""
        return Check(self.name, self.subject, Status.FAILED, found, remedy)


@dataclasses.dataclass(frozen=True, slots=True)
class Examination:
    """One look at one thing.

    `late` is what it means that the look did not end in time.
    """

    topic: Topic
    look: Callable[[], Iterable[Check]]
    late: str = "this machine is very slow, or something that it asks does not answer"
    patience: float = PATIENCE


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """All checks; without `all_ended` a thread still hangs in some library."""

    checks: tuple[Check, ...]
    all_ended: bool

    @property
    def ok(self) -> bool:
        """Tell whether nothing failed."""
        return not any(each.status is Status.FAILED for each in self.checks)


def examine(examinations: Iterable[Examination]) -> Report:
    """Carry out all examinations, one after the other.

    The next one is asked for once the last one has ended: a generator may stop
    where one has shown that the others would only fail.
    """
    checks: list[Check] = []
    all_ended = True
    for each in examinations:
        look = _Look(each)
        checks += look.run()
        all_ended = all_ended and look.ended
    return Report(tuple(checks), all_ended)


class _Look:
    """One examination in a thread of its own."""

    def __init__(self, examination: Examination) -> None:
        self._examination = examination
        self._found: list[Check] = []
        self._error: BaseException | None = None
        self.ended = False

    def run(self) -> Iterator[Check]:
        """Look, and return what was found up to then."""
        topic = self._examination.topic
        thread = threading.Thread(target=self._work, name=topic.name, daemon=True)
        thread.start()
        thread.join(self._examination.patience)
        self.ended = not thread.is_alive()
        yield from list(self._found)
        if not self.ended:
            seconds = f"{self._examination.patience:g} s"
            yield topic.failed(f"no answer within {seconds}", self._examination.late)
        if isinstance(self._error, DriverError):
            yield topic.failed(str(self._error))
        elif self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            for each in self._examination.look():
                self._found.append(each)  # seen while it grows
        except BaseException as error:  # noqa: BLE001  # raised where it is awaited
            self._error = error
