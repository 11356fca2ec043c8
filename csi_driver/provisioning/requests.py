# SPDX-License-Identifier: Apache-2.0
"""What the controller is asked and what it answers, as domain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from csi_driver.domain.access import Capability
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize


@dataclasses.dataclass(frozen=True, slots=True)
class CreateRequest:
    """One CreateVolume; `secrets` never shows in repr."""

    name: str
    capacity: CapacityRange
    capabilities: tuple[Capability, ...]
    parameters: Mapping[str, str]
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume as CSI shows it: exported size, context, nodes that export it."""

    volume_id: VolumeId
    size: EffectiveSize
    context: Mapping[str, str]
    nodes: tuple[str, ...] = ()


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
