# SPDX-License-Identifier: Apache-2.0
"""What a volume's record says of its snapshots.

An RBD snapshot keeps no metadata: its view shows the head's.  So what belongs
to a snapshot, its filesystem state and the keys that open it, stands in the
record of the volume that it was taken of.
"""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Mapping
from typing import Any
from typing import Final
from typing import Self

from csi_driver.domain import json_fields as read
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.sizes import EffectiveSize

SNAPSHOT_PREFIX: Final = "rbdcrypt-snap-"
"""Of the RBD snapshots that the driver makes, and of no others.

What is named so and stands in no record is removed.  ceph-csi, whose images can
be adopted, names its own `csi-snap-UUID`.
"""

MOST_SNAPSHOTS: Final = 256
"""Of one volume: every stage reads the record that lists them."""


_UNKNOWN: Final = EffectiveSize(0)


class SnapshotState(enum.Enum):
    """The life of a snapshot, in this order."""

    MAKING = "making"
    READY = "ready"
    DELETING = "deleting"
    KEPT = "kept"
    """Deleted, but its clones would lose what lies below it: goes when they do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of a volume.

    `name` is what the CO calls it, "" for one that was taken for a clone alone;
    `rbd_name` is unique to one attempt at taking it.  `number` is RBD's id,
    `size` the exported bytes, `created` in nanoseconds since 1970; they are 0
    while it is being made.  `layers` are the header UUIDs of its chain, own
    first, and `ancestors` is the number of images below it.
    """

    name: str
    rbd_name: str
    state: SnapshotState = SnapshotState.MAKING
    filesystem: FilesystemState = FilesystemState.NONE
    number: int = 0
    size: EffectiveSize = _UNKNOWN
    created: int = 0
    layers: tuple[str, ...] = ()
    ancestors: int = 0

    @property
    def internal(self) -> bool:
        """Tell whether it was taken for a clone alone, and goes with that."""
        return not self.name

    def to_json_object(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "rbdName": self.rbd_name,
            "state": self.state.value,
            "filesystem": self.filesystem.value,
            "number": self.number,
            "size": self.size.count,
            "created": self.created,
            "layers": list(self.layers),
            "ancestors": self.ancestors,
        }

    @classmethod
    def from_json_object(cls, fields: Mapping[str, Any]) -> Self:
        """Read the JSON form; TypeError, ValueError or LookupError if damaged."""
        return cls(
            name=read.string(fields, "name"),
            rbd_name=read.string(fields, "rbdName"),
            state=SnapshotState(fields["state"]),
            filesystem=FilesystemState(fields["filesystem"]),
            number=read.natural(fields, "number"),
            size=EffectiveSize(read.natural(fields, "size")),
            created=read.natural(fields, "created"),
            layers=read.strings(fields, "layers"),
            ancestors=read.natural(fields, "ancestors"),
        )


def new_snapshot_name() -> str:
    """Return a fresh name for an RBD snapshot."""
    return f"{SNAPSHOT_PREFIX}{uuid.uuid4()}"
