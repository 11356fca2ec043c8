# SPDX-License-Identifier: Apache-2.0
"""Opening a volume for an administrator's work, as the owner of its lock.

Refused while anybody uses the volume: the message says where.  What an earlier
attempt left behind, a lock and a watch of a client that was killed, is waited
for; Ceph drops both some 30 s later.  So is the end of what another client asked
the owner of the lock for: it would go on raw, and ruin the image.  Signals end
it in order, or are answered with what is waited for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from typing import Final

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.record import Record
from csi_driver.images.foreign import FLAT_SILENCE_SECONDS
from csi_driver.images.foreign import ForeignWork
from csi_driver.images.port import Pool
from csi_driver.images.records import read_record
from csi_driver.provisioning.interrupting import CLOSING
from csi_driver.provisioning.interrupting import Interrupts
from csi_driver.provisioning.unlocking import Content
from csi_driver.provisioning.unlocking import Keys

DEAD_SECONDS: Final = 45.0
"""How long the client of an earlier attempt is waited for; Ceph takes 30 s."""

_STEP: Final = 1.0

type Say = Callable[[str], None]
"""Told in a sentence what is being waited for."""


@contextlib.contextmanager
def owned(
    pool: Pool,
    keys: Keys,
    *,
    instead: str,
    say: Say = lambda _: None,
) -> Iterator[tuple[Content, Record]]:
    """Open the head for its data and take its lock; yield it with the record.

    The record is the one that was read under the lock.  `instead` ends the
    message of InUseError: what to do with a volume that is in use.
    """
    image_id = keys.record.image_id
    _await_dead(pool, keys.record, say)
    foreign = _Foreign(pool, keys.record)
    with (
        Interrupts(say) as interrupts,
        pool.listening(image_id, foreign.hear),
        keys.open(pool) as content,
        foreign.awaited(interrupts),
    ):
        try:
            foreign.own(content.image.acquire_lock)
        except InUseError as error:
            found = read_record(pool, image_id)
            raise _in_use(found, str(error), instead) from error
        record = read_record(pool, image_id).require_ready()
        watching = {each.address for each in content.image.foreign_watchers()}
        _require_alone(record, watching, keys.record, instead)
        yield content, record


def _require_alone(
    record: Record, watching: Collection[str], before: Record, instead: str
) -> None:
    """Refuse a volume that somebody uses, or whose keys are others than before."""
    if reader := _user(record, watching):
        raise _in_use(record, f"open by {reader}", instead)
    if record.ring != before.ring or record.mode is not before.mode:
        message = (
            f"the keys of volume {record.name!r} were changed meanwhile: try again"
        )
        raise InUseError(message)


class _Foreign:
    """Other clients' work in this process, from before the lock to the close."""

    def __init__(self, pool: Pool, record: Record) -> None:
        self._pool = pool
        self._image_id = record.image_id
        self._work = ForeignWork()
        self._owning = False
        self._why = (
            f"waiting for a flatten of volume {record.name!r} that another client"
            " asked for: to end this process now would ruin the image"
        )

    def hear(self, payload: bytes) -> None:
        """Take what clients tell each other, in a thread of librados'."""
        self._work.hear(payload, time.monotonic())

    def own(self, acquire: Callable[[], None]) -> None:
        """Take the lock: what is heard of from then on is done here."""
        self._owning = True
        try:
            acquire()
        except InUseError:
            self._owning = False
            raise

    @contextlib.contextmanager
    def awaited(self, interrupts: Interrupts) -> Iterator[None]:
        """Wait at the end for what is under way; the image is closed at once then.

        The watch goes on until it is closed.  A signal cannot come in between:
        if one interrupts the inner `finally`, no other one raises.
        """
        try:
            try:
                yield
            finally:
                interrupts.hold(CLOSING)
        finally:
            told = False
            while self._under_way():
                if not told:
                    interrupts.hold(self._why)
                    interrupts.say(self._why)
                    told = True
                time.sleep(_STEP)

    def _under_way(self) -> bool:
        """Tell whether another client's work is under way here."""
        if not self._owning or not self._work.under_way(time.monotonic()):
            return False
        try:
            with self._pool.open_raw(self._image_id, read_only=True) as image:
                if image.parent() is not None:
                    return self._work.under_way(time.monotonic())
        except DriverError:  # fenced: the lock is lost, and the work with it
            return False
        return self._work.under_way(time.monotonic(), FLAT_SILENCE_SECONDS)


def _await_dead(pool: Pool, record: Record, say: Say) -> None:
    """Wait until the client of an interrupted flatten is no longer registered."""
    work = record.flatten
    if work is None:
        return
    deadline = time.monotonic() + DEAD_SECONDS
    told = False
    with pool.open_raw(record.image_id) as image:
        while work.client_address in {e.address for e in image.foreign_watchers()}:
            if time.monotonic() > deadline:
                message = (
                    f"volume {record.name!r} is being flattened by"
                    f" {work.client_address}, which is alive: wait for its end"
                )
                raise InUseError(message)
            if not told:
                say(
                    f"waiting for {work.client_address}, which was flattening the"
                    " volume, to end or be dropped by Ceph"
                )
                told = True
            time.sleep(_STEP)


def _user(record: Record, watching: Collection[str]) -> str:
    """Return the address of an export that is alive, "" without one."""
    alive = (each for each in record.exports if each.alive(watching))
    return next((each.client_address for each in alive), "")


def _in_use(record: Record, found: str, instead: str) -> InUseError:
    nodes = ", ".join(each.node_id for each in record.exports)
    where = f"staged on node {nodes}" if nodes else "in use"
    return InUseError(f"volume {record.name!r} is {where} ({found}): {instead}")
