# SPDX-License-Identifier: Apache-2.0
"""Finding in a place what calls that died have left there, and tidying it up.

A CreateVolume whose process died is gone on with by the next one.  If none comes,
since the claim was deleted meanwhile and whoever knew of it died too, then what
was begun stays: a name, an image, the intent in a clone's source.  Here it is
given up once nobody has gone on with it for `ABANDONED_SECONDS`; what remains is
a tombstone, and left to `collection`.

Being wrong about that costs a create nothing but its work so far: see `giving_up`.
So two controllers may sweep at the same time, each by its own reckoning.

Entries whose image has a record beyond `creating` are looked at once; a sweep that
finds nothing new reads the directory alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Final

import structlog

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.port import Pool
from csi_driver.images.records import read_record
from csi_driver.provisioning import children
from csi_driver.provisioning.giving_up import give_up
from csi_driver.provisioning.overview import entries
from csi_driver.provisioning.stillness import Stillness

ABANDONED_SECONDS: Final = 600.0
"""How long nobody goes on with what is given up then.

The external-provisioner retries a claim that still exists at least every 5
minutes; so two of its calls in a row would have to fail before they change
anything."""

SWEEP_SECONDS: Final = 60.0
"""From one sweep of a place to the next."""

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Left:
    """What a call left: `record` is None as long as the entry has no image id."""

    entry: Entry
    record: Record | None

    @property
    def begun(self) -> bool:
        """Tell whether it is a volume that was never finished."""
        return self.record is None or self.record.state is VolumeState.CREATING


class Sweep:
    """The sweeps of one place, from one thread; it remembers what it saw."""

    def __init__(
        self,
        abandoned_after: float = ABANDONED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`abandoned_after` is in seconds."""
        self._after = abandoned_after
        self._begun = Stillness(2 * SWEEP_SECONDS, clock)
        self._owners = Stillness(2 * SWEEP_SECONDS, clock)
        self._whole: set[str] = set()

    def find(self, pool: Pool) -> list[tuple[Left, float]]:
        """Read what is there; return what is to be tidied, and since how long.

        In seconds, at least.  Nothing is changed.
        """
        found: list[tuple[Left, float]] = []
        ids, names = set(), set()
        for entry in entries(pool, deleted=False):
            ids.add(entry.image_id)
            names.add(entry.image_name)
            if entry.image_id in self._whole:
                continue
            try:
                left = _left(pool, entry)
            except UnavailableError:
                raise
            except DriverError as error:  # must not keep the others
                _log.warning(
                    "volume cannot be looked at", volume=entry.name, error=str(error)
                )
                continue
            if left is None:
                self._whole.add(entry.image_id)
                continue
            since = self._begun.note(entry.image_name, left)
            if not left.begun:
                found.append((left, since or 0.0))
            elif since is not None and since >= self._after:
                found.append((left, since))
        self._whole &= ids
        self._begun.keep_only(names)
        self._owners.keep_only(names)
        return found

    def tidy(self, pool: Pool, left: Left, seconds: float) -> bool:
        """Do what is to be done, once; tell whether a create was given up.

        Nothing is done if somebody goes on with it, or may.  `pool` is of a Rados
        instance of its own.
        """
        entry, record = left.entry, left.record
        if left.begun:
            try:
                give_up(pool, entry, record, lambda owner: self._is_dead(entry, owner))
            except (ConflictError, PendingError) as error:
                why = str(error)
                _log.debug("begun volume left alone", **_about(left), why=why)
                return False
            idle = round(seconds)
            _log.info("abandoned create given up", **_about(left), idle_seconds=idle)
        elif record and record.origin and record.state is VolumeState.READY:
            children.release_from(pool, record.origin, entry.image_name)
            self._whole.add(entry.image_id)  # what cannot be removed is logged once
            _log.info("source of a finished clone let go", **_about(left))
        else:
            with contextlib.suppress(ConflictError):  # somebody else just did it
                Directory(pool).bury(entry)
            _log.info("interrupted delete finished", **_about(left))
        return left.begun

    def _is_dead(self, entry: Entry, owner: str) -> bool:
        """Tell whether a lock's owner has done nothing for just as long again.

        A create holds the lock for a second, and one that is retried may change
        the record at its end only.
        """
        since = self._owners.note(entry.image_name, owner)
        return since is not None and since >= self._after


def begun(pool: Pool) -> Iterator[Left]:
    """Go through the volumes of a place that are begun and not finished."""
    for entry in entries(pool, deleted=False):
        left = _left(pool, entry)
        if left is not None and left.begun:
            yield left


def _left(pool: Pool, entry: Entry) -> Left | None:
    """Return what was left under an entry; None where there is nothing to do.

    An image that is gone or has lost its record is left to a person.
    """
    if not entry.image_id:
        return Left(entry, None)
    try:
        record = read_record(pool, entry.image_id)
    except (NotFoundError, RecordError):
        return None
    if record.state is VolumeState.READY:
        origin = record.origin
        if origin is None or children.lets_go(pool, origin, entry.image_name):
            return None
    return Left(entry, record)


def _about(left: Left) -> dict[str, str]:
    """Return what a log line says of it."""
    entry, record = left.entry, left.record
    state = record.state.value if record else "image not filed"
    return {"volume": entry.name, "image": entry.image_name, "state": state}
