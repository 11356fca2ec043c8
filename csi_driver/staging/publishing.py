# SPDX-License-Identifier: Apache-2.0
"""Showing a staged volume at target paths, and taking it away from there.

Also says whether what is mounted at a path is the volume, which decides
whether a path may be unmounted or measured.  Remembering the targets is left
to `stager`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from csi_driver.devices import hold
from csi_driver.devices import mounts
from csi_driver.devices import targets
from csi_driver.devices.device import Device
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.staging.state import NodeState
from csi_driver.staging.state import Target

_log = structlog.get_logger(__name__)

MOUNT_FLAGS: Final = frozenset(
    {
        "dev",
        "diratime",
        "exec",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "nosymfollow",
        "relatime",
        "strictatime",
        "suid",
    },
)
"""Flags that each mount has for itself (mount(8), 'FILESYSTEM-INDEPENDENT MOUNT
OPTIONS'); all others belong to the filesystem, which was mounted at stage."""


def require_allowed(state: NodeState, target: Target) -> None:
    """Refuse a publish that the access mode or the stage does not permit.

    AlreadyExistsError if the path has the volume with other arguments;
    PreconditionError for a second path of a single-target mode, and for the other
    kind of access than staged.
    """
    volume = state.volume_id
    present = state.target_at(target.path)
    if present is not None and present != target:
        message = (
            f"volume {volume} is published at {target.path} with other arguments:"
            " unpublish it there first"
        )
        raise AlreadyExistsError(message)
    if target.capability.block is not state.capability.block:
        kinds = {True: "a block device", False: "a filesystem"}
        message = (
            f"volume {volume} is staged as {kinds[state.capability.block]} and"
            f" cannot be published as {kinds[target.capability.block]}"
        )
        raise PreconditionError(message)
    others = [each for each in state.targets if each.path != target.path]
    if others and not target.capability.mode.many_targets:
        message = (
            f"volume {volume} is published at {others[0].path}; its access mode"
            f" {target.capability.mode.value} allows one path at a time"
        )
        raise PreconditionError(message)


def show(state: NodeState, device: Device, target: Target) -> None:
    """Make the volume visible at the target path; success if it is.

    A block device that is staged for writing is shown as it is, to readers too:
    its node cannot keep anyone from writing.  Kubernetes does that itself, by the
    rule `r` of the container's device cgroup (kubelet, makeBlockVolumes).

    AlreadyExistsError when something else is mounted there, PreconditionError
    when the path is of the wrong kind; a path made here is removed again then.
    """
    existed = os.path.lexists(target.path)
    try:
        if state.capability.block:
            with hold.held(device):
                mounts.bind_device(device.path, target.path)
            return
        mounts.bind_directory(
            state.staging_path,
            target.path,
            read_only=target.read_only,
            flags=[
                flag for flag in target.capability.mount_flags if flag in MOUNT_FLAGS
            ],
        )
    except DriverError as error:
        if not existed:
            _remove_again(target.path, error)
        raise


def shows(path: Path, device: Device) -> bool:
    """Tell whether the device, or its filesystem, is mounted at a path."""
    stacked = mounts.at(mounts.read_mounts(), path)
    if not stacked:
        return False
    numbers = mounts.device_numbers(device.path)
    return stacked[-1].numbers == numbers or mounts.mounted_device(path) == numbers


def hide(path: Path, device: Device | None, dead: Callable[[], bool]) -> None:
    """Unmount a path of the volume; success if nothing is mounted there.

    A mount of a device that has died, as `dead` tells, is detached even while
    it is in use.  PreconditionError when something else is mounted there,
    which is left alone; InUseError when it is busy.
    """
    stacked = mounts.at(mounts.read_mounts(), path)
    if not stacked:
        return
    if device is None or not shows(path, device):
        message = (
            f"{path} has {stacked[-1].describe()} mounted, which is not this"
            " volume: it is left alone, unmount it by hand"
        )
        raise PreconditionError(message)
    try:
        mounts.unmount(path)
    except InUseError:
        if not dead():
            raise
        reason = mounts.unmount_once(path, lazy=True)
        if reason is not None:
            message = f"{path} cannot be detached from its dead device: {reason}"
            raise InUseError(message) from None
        _log.warning("detached a mount of a dead device", path=str(path))


def _remove_again(path: Path, reason: DriverError) -> None:
    try:
        targets.remove_target(path)
    except DriverError as error:
        reason.add_note(f"{path} could not be removed again: {error}")
