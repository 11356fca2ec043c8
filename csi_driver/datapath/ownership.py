# SPDX-License-Identifier: Apache-2.0
"""Whose lock is it, and may it be broken?  Decisions only.

Breaking a lock fences its owner, so it is done to one's own dead predecessor
and to nobody else: a worker of this node that an earlier boot ran, or whose
process provably ended.
"""

from __future__ import annotations

from csi_driver.datapath.messages import Predecessor
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import EffectiveSize


def require_dead_predecessor(
    address: str,
    record: Record,
    node_id: str,
    boot_id: str,
    predecessor: Predecessor,
) -> None:
    """Return if the lock of the client at `address` may be broken by this node.

    InUseError names the holder otherwise.
    """
    if predecessor.gone and address in predecessor.addresses:
        return
    entry = _entry(address, record)
    if entry is None:
        message = (
            f"volume {record.name!r} is in use: its lock belongs to the Ceph client"
            f" at {address}, which is not an export of this driver"
        )
        raise InUseError(message)
    if entry.node_id != node_id:
        message = (
            f"volume {record.name!r} is in use on node {entry.node_id!r} (Ceph"
            f" client at {address}): it has to be unstaged there first"
        )
        raise InUseError(message)
    if entry.boot_id != boot_id or predecessor.gone:
        return
    message = (
        f"volume {record.name!r} is in use: an export of this node (Ceph client at"
        f" {address}) holds its lock, and the end of its process is not proven"
    )
    raise InUseError(message)


def require_servable(record: Record, mode: EncryptionMode) -> None:
    """Refuse to serve what is not ready, or not of the mode that was asked for.

    The mode guards against a downgrade: an encrypted volume is never served
    raw, whatever its record or its header say by now.
    """
    record.require_ready()
    if record.mode is not mode:
        message = (
            f"volume {record.name!r} has encryption mode {record.mode.value!r} in"
            f" its record, {mode.value!r} was asked for: nothing was served"
        )
        raise PreconditionError(message)


def require_size(record: Record, found: EffectiveSize) -> None:
    """Refuse an image that is smaller than what was verified before."""
    if found < record.actual:
        message = (
            f"volume {record.name!r} has {record.actual} by its record, its image"
            f" holds {found}: nothing was served"
        )
        raise PreconditionError(message)


def missing_header(error: HeaderError, volume: str) -> HeaderError:
    """Say what a load without a usable header means for a volume."""
    return HeaderError(
        f"volume {volume} is an encrypted volume, but no LUKS header that fits"
        f" stands on its image; it is not served as plaintext ({error})",
    )


def node_of(address: str, record: Record) -> str:
    """Return the node whose export the client at `address` is; "" if it is none."""
    entry = _entry(address, record)
    return "" if entry is None else entry.node_id


def _entry(address: str, record: Record) -> ExportEntry | None:
    for each in record.exports:
        if each.client_address == address:
            return each
    return None
