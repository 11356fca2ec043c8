# SPDX-License-Identifier: Apache-2.0
"""Getting the lock of a volume that is to be opened out of others' hands.

A dead predecessor's is broken.  A command that flattens an unstaged volume is
asked to let go, through the record, because its work can go on later.
Everybody else keeps the lock.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Final

import structlog

from csi_driver.datapath.holdings import Holdings
from csi_driver.datapath.holdings import watching
from csi_driver.datapath.messages import Predecessor
from csi_driver.domain.record import Record
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.nbd.librbd_image import LibrbdImage

LET_GO_SECONDS: Final = 5.0
"""How long to wait for a command, which looks at the record every 2 s."""

_POLL_SECONDS: Final = 0.1
_log = structlog.get_logger(__name__)


def make_way(image: LibrbdImage, held: Holdings, predecessor: Predecessor) -> None:
    """Make the lock free for a writer; InUseError names whoever keeps it.

    The loaded handle is asked who has it: a raw one, which alone can break it,
    costs as much to open as the loaded one did.
    """
    if image.lock_owners():
        with held.pool.open_raw(held.volume_id.image_id) as raw:
            free_lock(raw, held, predecessor)


def free_lock(raw: RawImage, held: Holdings, predecessor: Predecessor) -> None:
    """Make the lock free; InUseError names whoever keeps it."""
    owner = raw.lock_owner()
    if owner is not None and owner.address in watching(raw):
        _ask_to_let_go(raw, held, owner.address)
    held.break_dead_lock(raw, predecessor)


def _ask_to_let_go(raw: RawImage, held: Holdings, address: str) -> None:
    """Cancel the flatten of a command that has the lock, and wait for the lock.

    A worker that flattens what it serves is no such command: it is an export,
    and has to be unstaged.
    """
    asked = False

    def cancelled(record: Record) -> Record:
        nonlocal asked
        work = record.flatten
        serving = any(each.client_address == address for each in record.exports)
        asked = work is not None and work.client_address == address and not serving
        if work is None or not asked:
            return record
        return dataclasses.replace(
            record, flatten=dataclasses.replace(work, cancel=True)
        )

    change_record(held.pool, held.volume_id.image_id, cancelled)
    if not asked:
        return
    _log.info(
        "asking a flatten command to let go",
        volume=str(held.volume_id),
        client=address,
    )
    deadline = time.monotonic() + LET_GO_SECONDS
    while time.monotonic() < deadline:
        owner = raw.lock_owner()
        if owner is None or owner.address != address:
            return
        time.sleep(_POLL_SECONDS)
