# SPDX-License-Identifier: Apache-2.0
"""Refusing a block device that somebody has for itself, in any mount namespace.

The mounts of other namespaces, such as kubelet's and those of pods, cannot be
read, but a device that is mounted in one of them cannot be claimed (open(2),
O_EXCL on block devices).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from csi_driver.devices.device import Device
from csi_driver.devices.netlink import bounded
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import UnavailableError

CLAIM_SECONDS: Final = 2.0


def require_unclaimed(device: Device, *, served: bool) -> None:
    """InUseError if a filesystem or a tool has the device for itself.

    Opening a device may wait for its server.  One that is `served` is in use as
    long as that is not decided; one whose server is dead is not waited for, since
    nobody's I/O on it can be saved.
    """
    try:
        claimed = bounded(
            f"opening {device.path}", CLAIM_SECONDS, lambda: _is_claimed(device.path)
        )
    except UnavailableError as error:
        if not served:
            return
        raise InUseError(
            f"{device.path} of volume {device.identity} could not be opened within "
            f"{CLAIM_SECONDS:g} s, so that it may be mounted in another mount "
            "namespace: its server is busy or waits for Ceph; try again when Ceph "
            "answers"
        ) from error
    if claimed:
        raise InUseError(
            f"{device.path} of volume {device.identity} is in use: it is mounted in "
            "another mount namespace, a process has a file open on a mount that was "
            "detached, or a tool works on it; end that first"
        )


def _is_claimed(device: Path) -> bool:
    """Say whether the device cannot be claimed."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False
