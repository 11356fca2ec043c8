# SPDX-License-Identifier: Apache-2.0
"""Clones to be flattened, and how far that has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Protocol

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.domain.flattening import FlattenPolicy
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from tests.ceph.datapath.clones import Clone

if TYPE_CHECKING:
    from tests.ceph.datapath.running import Running

LONG = EffectiveSize(1024 * MIB)
"""Of a clone whose flatten takes about two seconds, one object at a time."""
SHORT = EffectiveSize(64 * MIB)
ALWAYS, NEVER = FlattenPolicy.ALWAYS, FlattenPolicy.NEVER


class MakeClone(Protocol):
    """Makes a clone of a parent of its own."""

    def __call__(
        self,
        policy: FlattenPolicy,
        *,
        mode: EncryptionMode = EncryptionMode.KEYRING,
        parent_mode: EncryptionMode | None = None,
        size: EffectiveSize = ...,
        recovered: bool = True,
        features: Sequence[str] = (),
    ) -> Clone: ...


def flatten_status(running: Running, clone: Clone) -> FlattenStatus:
    status = running.client.status(clone.volume.volume_id)
    assert status is not None
    if status.counters is None or status.counters.flatten is None:
        return FlattenStatus()
    return status.counters.flatten


def state(running: Running, clone: Clone) -> FlattenState:
    return flatten_status(running, clone).state


def copied_some(running: Running, clone: Clone) -> bool:
    status = flatten_status(running, clone)
    assert status.state is not FlattenState.DONE, "too fast for this test"
    return status.state is FlattenState.COPYING and status.done > 10
