# SPDX-License-Identifier: Apache-2.0
"""What the controller is asked and what it answers, as domain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from csi_driver.domain.access import Capability
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize

type Source = VolumeId | SnapshotId
"""What a clone is made from."""


@dataclasses.dataclass(frozen=True, slots=True)
class CreateRequest:
    """One CreateVolume; `secrets` never shows in repr.

    `mutable` are the parameters of a VolumeAttributesClass; without `source`
    the volume begins empty.
    """

    name: str
    capacity: CapacityRange
    capabilities: tuple[Capability, ...]
    parameters: Mapping[str, str]
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    source: Source | None = None
    mutable: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """One CreateSnapshot; `parameters` are those of a VolumeSnapshotClass."""

    name: str
    volume: VolumeId
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume as CSI shows it: exported size, context, nodes that export it.

    `source` is what it was cloned from, whether that still exists or not.
    """

    volume_id: VolumeId
    size: EffectiveSize
    context: Mapping[str, str]
    nodes: tuple[str, ...] = ()
    source: Source | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot as CSI shows it: exported size, nanoseconds since 1970."""

    snapshot_id: SnapshotId
    size: EffectiveSize
    created: int


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotPage:
    """A page of snapshots; `next_token` is "" on the last one."""

    snapshots: tuple[SnapshotInfo, ...]
    next_token: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class VolumePage:
    """A page of volumes; `next_token` is "" on the last one."""

    volumes: tuple[VolumeInfo, ...]
    next_token: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Capacity:
    """Room for volumes of one class, in bytes."""

    available: int
    largest: int
    smallest: int


@dataclasses.dataclass(frozen=True, slots=True)
class Expansion:
    """The promised size, and whether the node still has to act."""

    size: EffectiveSize
    node_required: bool


class Provisioner(Protocol):
    """The controller's work, as `rpc` calls it."""

    def create(self, request: CreateRequest) -> VolumeInfo:
        """Create a volume, or return the one that an equal call made."""

    def delete(self, volume_id: VolumeId) -> None:
        """Delete a volume; one that does not exist is deleted already."""

    def get(self, volume_id: VolumeId) -> VolumeInfo:
        """Return a volume; NotFoundError without it."""

    def list(self, token: str, limit: int) -> VolumePage:
        """Page through all volumes; limit 0 means no limit.

        PendingError for a token that this driver did not give out, which CSI
        wants as ABORTED.
        """

    def modify(self, volume_id: VolumeId, mutable: Mapping[str, str]) -> None:
        """Change a volume's I/O limits; what is not named stays.

        InvalidRequestError if any of it is not understood: nothing changes then.
        """

    def create_snapshot(self, request: SnapshotRequest) -> SnapshotInfo:
        """Take a snapshot, or return the one that an equal call took.

        AlreadyExistsError if the name belongs to another volume's snapshot;
        PendingError while it cannot be taken, and a later try may succeed.
        """

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        """Delete a snapshot; one that does not exist is deleted already.

        PendingError while a clone is being made from it.
        """

    def get_snapshot(self, snapshot_id: SnapshotId) -> SnapshotInfo:
        """Return a snapshot; NotFoundError without it."""

    def list_snapshots(
        self, token: str, limit: int, volume: VolumeId | None = None
    ) -> SnapshotPage:
        """Page through all snapshots, or those of one volume; limit 0: no limit.

        A volume that does not exist has none.  PendingError as in `list`.
        """

    def expand(self, volume_id: VolumeId, capacity: CapacityRange) -> Expansion:
        """Promise a bigger size; the node carries it out."""

    def capacity(
        self,
        parameters: Mapping[str, str],
        capabilities: tuple[Capability, ...],
    ) -> Capacity:
        """Return the room for volumes with these class parameters."""

    def refusal(
        self,
        volume_id: VolumeId,
        capabilities: tuple[Capability, ...],
        context: Mapping[str, str],
        parameters: Mapping[str, str],
    ) -> str | None:
        """Return why the volume cannot be used like this, None if it can."""
