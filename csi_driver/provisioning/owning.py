# SPDX-License-Identifier: Apache-2.0
"""Opening a volume for an administrator's work, as the owner of its lock.

Refused while anybody uses the volume: the message says where.  What an earlier
attempt left behind, a lock and a watch of a client that was killed, is waited
for; Ceph drops both some 30 s later.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from typing import Final

from csi_driver.domain.errors import InUseError
from csi_driver.domain.record import Record
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
        yield content, record


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
