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


def require_unclaimed(device: Device) -> None:
    """InUseError if a filesystem or a tool has the device for itself."""
    if _is_claimed(device.path):
        raise InUseError(
            f"{device.path} of volume {device.identity} is in use: it is mounted in "
            "another mount namespace, a process has a file open on a mount that was "
            "detached, or a tool works on it; end that first"
        )


def _is_claimed(device: Path) -> bool:
    """Say whether the device cannot be claimed.

    Opening a device whose server is dead may wait for it: such a one is not
    waited for, since nobody's I/O on it can be saved.
    """

    def claim() -> bool:
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False

    try:
        return bounded(f"opening {device}", CLAIM_SECONDS, claim)
    except UnavailableError:
        return False
