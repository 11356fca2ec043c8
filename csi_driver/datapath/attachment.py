# SPDX-License-Identifier: Apache-2.0
"""The devices of this datapath: which way they are made, found and cut off.

One object per way lives as long as the supervisor, because nbdfuse is its
child.  How devices work is left to `devices`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from typing import Protocol

import structlog

from csi_driver.devices import attach
from csi_driver.devices.device import AttachMethod
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.fuse_loop import FuseLoop
from csi_driver.devices.kernel_nbd import KernelNbd
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InvalidRequestError

DEAD_CONNECTION_SECONDS: Final = 5
"""How long the kernel keeps requests when the server is gone.

Nothing replaces a dead worker under its device yet, so waiting longer would
only turn an error into a hang.
"""

_log = structlog.get_logger(__name__)


class Devices(Protocol):
    """What the supervisor asks of devices."""

    def method(self, name: str) -> AttachMethod:
        """Return the way of that name; "auto" is the datapath's own choice."""

    def of(self, device: Device) -> AttachMethod:
        """Return the way a device was made."""

    def find(self, identity: str) -> Device | None:
        """Find a volume's device without any stored state."""

    def cut_off(self, device: Device) -> None:
        """Make a dead export's device fail at once instead of waiting."""


class NodeDevices:
    """The devices of this node."""

    def __init__(self, directory: Path, default: str) -> None:
        """`directory` holds the fallback's mount points; `default` is for "auto"."""
        self._directory = directory
        self._default = default
        self._chosen: dict[str, AttachMethod] = {}
        self._kernel = KernelNbd(dead_connection_seconds=DEAD_CONNECTION_SECONDS)
        self._ways: dict[DeviceKind, AttachMethod] = {
            DeviceKind.KERNEL: self._kernel,
            DeviceKind.FUSE: FuseLoop(directory),
        }

    def method(self, name: str) -> AttachMethod:
        """Return the way of that name; UnsupportedError if it does not work here.

        A choice is kept: to look for the kernel's NBD client starts modprobe,
        which took a tenth of a stage.  So a module loaded by hand is only used
        once the datapath has been restarted.
        """
        wanted = self._default if name == "auto" else name
        if wanted not in self._chosen:
            self._chosen[wanted] = self._choose(wanted)
        return self._chosen[wanted]

    def _choose(self, wanted: str) -> AttachMethod:
        match wanted:
            case "auto" | "kernel" | "fuse":
                chosen = attach.choose(wanted, directory=self._directory)
            case _:
                raise InvalidRequestError(f"there is no device method {wanted!r}")
        return self._ways[chosen.kind]

    def of(self, device: Device) -> AttachMethod:
        """Return the way a device was made."""
        return self._ways[device.kind]

    def find(self, identity: str) -> Device | None:
        """Find a volume's device of either kind."""
        for way in self._ways.values():
            device = way.find(identity)
            if device is not None:
                return device
        return None

    def cut_off(self, device: Device) -> None:
        """Disconnect a kernel device, even under a mount.

        nbdfuse fails requests by itself when its server is gone, so that its
        loop device needs nothing; it goes when its volume is closed or opened.
        """
        if device.kind is DeviceKind.KERNEL:
            self._kernel.cut_off(device)


def cut_off_quietly(devices: Devices, device: Device) -> None:
    """As `Devices.cut_off`, for when nobody is there to be told of a failure."""
    try:
        devices.cut_off(device)
    except DriverError as error:
        _log.warning("device not cut off", device=str(device.path), error=str(error))
