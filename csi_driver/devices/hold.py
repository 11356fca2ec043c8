# SPDX-License-Identifier: Apache-2.0
"""Keep a device from becoming another volume's while it is worked on.

When an export dies, its /dev/nbdN or /dev/loopN is free for the next volume,
under the same path.  A tool that was given the path would then work on foreign
data.  An open descriptor keeps the kernel from using the name again: nbd keeps
its configuration and loop its file until the last close.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from csi_driver.devices import fuse_loop
from csi_driver.devices import kernel_nbd
from csi_driver.devices import loop
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.domain.errors import ExportLostError


@contextmanager
def held(device: Device) -> Iterator[None]:
    """Hold a device; it is the volume's own as long as this lasts.

    ExportLostError if it is gone, or is another volume's by now.
    """
    try:
        descriptor = os.open(device.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _lost(device, f"cannot be opened: {error}") from error
    try:
        if not serves(device):
            raise _lost(device, "is free or another volume's by now")
        yield
    finally:
        os.close(descriptor)


def serves(device: Device) -> bool:
    """Say whether the device is still the volume's own."""
    name = device.path.name
    match device.kind:
        case DeviceKind.KERNEL:
            return kernel_nbd.backend(name) == device.identity
        case DeviceKind.FUSE:
            backing = loop.backing_file(name)
            return backing is not None and fuse_loop.is_file_of(
                backing, device.identity
            )


def _lost(device: Device, what: str) -> ExportLostError:
    return ExportLostError(
        f"{device.path} of volume {device.identity} {what}: the volume must be"
        " staged anew"
    )
