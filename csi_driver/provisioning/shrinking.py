# SPDX-License-Identifier: Apache-2.0
"""Shrinking a volume that is not staged: for administrators alone.

Always through a handle that knows where the data begin, never below the
filesystem, and with the record first: exports use the recorded size, so that
nobody is offered what is about to go.  A shrink that was interrupted in between
is ended by asking for the same size again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from csi_driver.domain import superblock
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.provisioning.owning import Say
from csi_driver.provisioning.owning import owned
from csi_driver.provisioning.unlocking import Content
from csi_driver.provisioning.unlocking import unlocked

FLAG: Final = "--content-ends-before-size"
"""How an administrator vouches for content of which the driver knows no size."""

_INSTEAD: Final = "a volume is shrunk while no node has it: unstage it first"
_MADE: Final = {FilesystemState.EXT4, FilesystemState.XFS}


@dataclasses.dataclass(frozen=True, slots=True)
class Shrink:
    """The exported bytes that shall be left.

    `vouched`: the caller knows that content of unknown size ends before them.
    """

    size: EffectiveSize
    vouched: bool = False


def shrink(
    pool: Pool,
    image_id: str,
    asked: Shrink,
    secrets: Mapping[str, str],
    say: Say = lambda _: None,
) -> Record:
    """Shrink a volume and return its record.

    `pool` belongs to a Rados instance of this work's own.  SizeError for a size
    that is no whole number of blocks, or larger than the volume;
    PreconditionError if the content does not end before it; InUseError while
    the volume is in use.
    """
    record = read_record(pool, image_id).require_ready()
    _require_smaller(pool, record, asked.size)
    with (
        unlocked(record, secrets) as keys,
        owned(pool, keys, instead=_INSTEAD, say=say) as (content, found),
    ):
        _require_smaller(pool, found, asked.size)
        require_outside(found, _head(content, found), asked)

        def smaller(present: Record) -> Record:
            present.require_ready()
            if present.desired != found.desired:
                message = (
                    f"volume {present.name!r} was promised {present.desired} meanwhile:"
                    " nothing was shrunk"
                )
                raise PendingError(message)
            return dataclasses.replace(present, desired=asked.size, actual=asked.size)

        changed = change_record(pool, image_id, smaller)
        content.shrink(asked.size)
        _require_raw(pool, changed)
    return changed


def require_outside(record: Record, head: bytes, asked: Shrink) -> None:
    """Refuse to cut off content; `head` are the volume's first 4096 bytes.

    PreconditionError says what reaches beyond the size, or is not known.
    """
    name = record.name
    found = superblock.parse(head)
    if record.filesystem is FilesystemState.NONE:
        return
    if record.filesystem is FilesystemState.MAKING or not record.recovered:
        message = (
            f"what volume {name!r} holds is not settled: its filesystem was not"
            " finished, or as a clone it was never mounted; stage it once before"
        )
        raise PreconditionError(message)
    if record.filesystem in _MADE and found is None:
        message = (
            f"the record of volume {name!r} says {record.filesystem.value}, and no"
            " such superblock is there: nothing was changed; check the volume"
        )
        raise PreconditionError(message)
    if record.filesystem is FilesystemState.RAW or found is None:
        if not asked.vouched:
            message = (
                f"volume {name!r} holds content whose size the driver does not know:"
                f" make sure that it ends before {asked.size}, then give {FLAG}"
            )
            raise PreconditionError(message)
        return
    if found.unclean:
        message = (
            f"the journal of the ext4 on volume {name!r} was not replayed, so its"
            " size is not certain: stage and unstage the volume once"
        )
        raise PreconditionError(message)
    if found.size > asked.size.count:
        remedy = (
            "an xfs cannot be shrunk: copy it to a smaller volume"
            if found.filesystem == "xfs"
            else "shrink it first, with resize2fs on the unmounted device"
        )
        message = (
            f"the {found.filesystem} on volume {name!r} has {found.size} bytes, more"
            f" than the {asked.size} asked for: {remedy}"
        )
        raise PreconditionError(message)


def _require_smaller(pool: Pool, record: Record, size: EffectiveSize) -> None:
    """Refuse a size that is none, or no smaller than record and image."""
    if not size.count or size.count % BLOCK_SIZE:
        message = (
            f"a volume has whole blocks of {BLOCK_SIZE} bytes, {size.count} bytes are"
            " no such size"
        )
        raise SizeError(message)
    if size > record.actual:
        message = (
            f"volume {record.name!r} has {record.actual}, fewer than the {size} that"
            " it shall shrink to: growing is the matter of a"
            " PersistentVolumeClaim's size"
        )
        raise SizeError(message)
    with pool.open_raw(record.image_id, read_only=True) as image:
        raw = image.raw_size()
    if raw < record.layout.raw(size):
        message = (
            f"the image of volume {record.name!r} has {raw}, {size} take"
            f" {record.layout.raw(size)}: run `rbdcrypt-csi volume check`"
        )
        raise SizeError(message)
    if size == record.actual == record.desired and raw == record.raw_size:
        message = f"volume {record.name!r} has {size} already"
        raise SizeError(message)


def _head(content: Content, record: Record) -> bytes:
    return content.image.read(0, min(superblock.HEAD_BYTES, record.actual.count))


def _require_raw(pool: Pool, record: Record) -> None:
    with pool.open_raw(record.image_id, read_only=True) as image:
        raw: RawSize = image.raw_size()
    if raw != record.raw_size:
        message = (
            f"the image of volume {record.name!r} has {raw} after the shrink,"
            f" expected were {record.raw_size}: run `rbdcrypt-csi volume check`"
        )
        raise InternalError(message)
