# SPDX-License-Identifier: Apache-2.0
"""What a clone was made from, and what is being made from a volume.

librbd knows parents and children once a clone is whole.  Until then the intent
stands in the source's record, so that neither the snapshot nor the source can
go from under a clone in the making.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from typing import Self

from csi_driver.domain import json_fields as read
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What a clone was made from: the CSI id of a volume or of a snapshot."""

    source: str

    @property
    def volume(self) -> VolumeId:
        """The volume in whose record the intent stands; NotFoundError for no id."""
        try:
            return SnapshotId.parse(self.source).volume
        except NotFoundError:
            return VolumeId.parse(self.source)

    def to_json_object(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"source": self.source}

    @classmethod
    def from_json_object(cls, fields: Mapping[str, Any]) -> Self:
        """Read the JSON form; TypeError or LookupError if it is damaged."""
        return cls(source=read.string(fields, "source"))


@dataclasses.dataclass(frozen=True, slots=True)
class ChildIntent:
    """A clone that is being made from a snapshot of this volume.

    `snapshot` is the RBD name of the snapshot; the rest says where the clone's
    directory entry is, which tells whether it is still being made.
    """

    image_name: str
    snapshot: str
    volume: str
    pool_id: int
    namespace: str

    def to_json_object(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "image": self.image_name,
            "snapshot": self.snapshot,
            "volume": self.volume,
            "pool": self.pool_id,
            "namespace": self.namespace,
        }

    @classmethod
    def from_json_object(cls, fields: Mapping[str, Any]) -> Self:
        """Read the JSON form; TypeError or LookupError if it is damaged."""
        return cls(
            image_name=read.string(fields, "image"),
            snapshot=read.string(fields, "snapshot"),
            volume=read.string(fields, "volume"),
            pool_id=read.natural(fields, "pool"),
            namespace=read.string(fields, "namespace"),
        )
