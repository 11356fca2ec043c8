# SPDX-License-Identifier: Apache-2.0
"""How the flatten of an open clone stands, as the datapath tells it."""

from __future__ import annotations

import dataclasses
import enum


class FlattenState(enum.Enum):
    """Where a flatten is."""

    IDLE = "idle"
    """Nothing was asked for."""
    WAITING = "waiting"
    """It begins once the clone's first stage has replayed the journal."""
    COPYING = "copying"
    FOREIGN = "foreign"
    """Another client asked for one, and it is carried out here."""
    VERIFYING = "verifying"
    DONE = "done"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class FlattenStatus:
    """`done` of `total` are objects; `reason` says why it failed."""

    state: FlattenState = FlattenState.IDLE
    done: int = 0
    total: int = 0
    reason: str = ""
