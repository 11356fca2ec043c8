# SPDX-License-Identifier: Apache-2.0
"""What the node is asked and what it answers, as domain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from csi_driver.domain.access import Capability
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize


@dataclasses.dataclass(frozen=True, slots=True)
class StageRequest:
    """One NodeStageVolume; `secrets` never shows in repr."""

    volume_id: VolumeId
    staging_path: Path
    capability: Capability
    context: Mapping[str, str]
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class PublishRequest:
    """One NodePublishVolume."""

    volume_id: VolumeId
    staging_path: Path
    target_path: Path
    capability: Capability
    read_only: bool
    context: Mapping[str, str]
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class ExpandRequest:
    """One NodeExpandVolume; it may come without staging path and secrets."""

    volume_id: VolumeId
    volume_path: Path
    capacity: CapacityRange


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """One line of NodeGetVolumeStats; `unit` is "bytes" or "inodes"."""

    unit: str
    total: int
    used: int = 0
    available: int = 0


class Stager(Protocol):
    """The node's work, as `rpc` calls it.  Every call is idempotent."""

    def stage(self, request: StageRequest) -> None:
        """Open, load, attach, make or check the filesystem, mount."""

    def unstage(self, volume_id: VolumeId, staging_path: Path) -> None:
        """Unmount, detach, close: the keys are gone when it returns."""

    def publish(self, request: PublishRequest) -> None:
        """Show the staged volume at the target path."""

    def unpublish(self, volume_id: VolumeId, target_path: Path) -> None:
        """Take the target path away."""

    def stats(self, volume_id: VolumeId, volume_path: Path) -> tuple[Usage, ...]:
        """Measure the volume at that path; NotFoundError if it is not there."""

    def expand(self, request: ExpandRequest) -> EffectiveSize:
        """Grow image, device and filesystem to what the controller promised."""
