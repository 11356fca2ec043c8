# SPDX-License-Identifier: Apache-2.0
"""Opening a volume for an administrator's work, as the owner of its lock.

Refused while anybody uses the volume: the message says where.  What an earlier
attempt left behind, a lock and a watch of a client that was killed, is waited
for; Ceph drops both some 30 s later.  So is the end of what another client asked
the owner of the lock for: it would go on raw, and ruin the image.
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
    name = keys.record.name
    _await_dead(pool, keys.record, say)
    with keys.open(pool) as content:
        image = content.image
        try:
            image.acquire_lock()
        except InUseError as error:
            found = read_record(pool, keys.record.image_id)
            raise _in_use(found, str(error), instead) from error
        record = read_record(pool, keys.record.image_id).require_ready()
        watching = {each.address for each in image.foreign_watchers()}
        if reader := _user(record, watching):
            raise _in_use(record, f"open by {reader}", instead)
        if record.ring != keys.record.ring or record.mode is not keys.record.mode:
            message = f"the keys of volume {name!r} were changed meanwhile: try again"
            raise InUseError(message)
        with _staying(pool, record, say):
            yield content, record


@contextlib.contextmanager
def _staying(pool: Pool, record: Record, say: Say) -> Iterator[None]:
    """Keep the lock until other clients' work in this process has ended."""
    foreign = ForeignWork()
    with pool.listening(record.image_id, lambda payload: _hear(foreign, payload)):
        try:
            yield
        finally:
            told = False
            while _under_way(pool, record.image_id, foreign):
                if not told:
                    say(
                        f"waiting for a flatten of volume {record.name!r} that another"
                        " client asked for: to end this process now would ruin the"
                        " image"
                    )
                    told = True
                time.sleep(_STEP)


def _hear(foreign: ForeignWork, payload: bytes) -> None:
    foreign.hear(payload, time.monotonic())


def _under_way(pool: Pool, image_id: str, foreign: ForeignWork) -> bool:
    """Tell whether another client's work is under way here."""
    if not foreign.under_way(time.monotonic()):
        return False
    try:
        with pool.open_raw(image_id, read_only=True) as image:
            if image.parent() is not None:
                return True
    except DriverError:  # fenced: the lock is lost, and the work with it
        return False
    return foreign.under_way(time.monotonic(), FLAT_SILENCE_SECONDS)


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
