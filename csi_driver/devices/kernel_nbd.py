# SPDX-License-Identifier: Apache-2.0
"""Devices of the kernel's NBD client, /dev/nbdN.

The kernel gets one end of a socketpair; the other end goes to the server, which
starts in the transmission phase.  Whose device it is stands in sysfs: the
`backend` string is the volume id, and only a device with ours is touched.

Truth about a device is read from sysfs (`pid`, `backend`, `size`), not from the
netlink STATUS command, which says "connected" as soon as anybody opens it.
`queue/io_timeout` is set to 1000 ms once, right after CONNECT: requests in
flight when a server dies are sent again only when that timer fires (30 s by
default; measured on Linux 6.12: one second instead of thirty).  Writing it, or
any size, while the server is dead hangs the kernel for good, so it never is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from typing import Final

from csi_driver.devices import mounts
from csi_driver.devices import sysfs
from csi_driver.devices.claims import CLAIM_SECONDS
from csi_driver.devices.claims import require_unclaimed
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.device import GiveSocket
from csi_driver.devices.device import NbdExport
from csi_driver.devices.device import ServerAlive
from csi_driver.devices.genetlink import NetlinkError
from csi_driver.devices.netlink import Connect
from csi_driver.devices.netlink import NbdControl
from csi_driver.devices.netlink import bounded
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError

DEAD_CONNECTION_SECONDS: Final = 24 * 3600
REQUEST_TIMEOUT_MS: Final = 1000

_NAME: Final = re.compile(r"nbd(\d+)\Z")


class KernelNbd:
    """Attaches exports through the kernel's NBD client."""

    kind: Final = DeviceKind.KERNEL

    def __init__(
        self,
        *,
        dead_connection_seconds: int = DEAD_CONNECTION_SECONDS,
        timeout: float = 20.0,
        control: NbdControl | None = None,
    ) -> None:
        """Let requests wait `dead_connection_seconds` for a new server.

        `timeout` (seconds) bounds each step of attach and detach.
        """
        self._dead_connection_seconds = dead_connection_seconds
        self._timeout = timeout
        self._control = control or NbdControl(timeout)
        self._kept: dict[str, int] = {}

    def available(self) -> str | None:
        """Say why the kernel's NBD client cannot be used, or None if it can."""
        return self._control.available()

    def attach(self, export: NbdExport, give_socket: GiveSocket) -> Device:
        """Connect a new /dev/nbdN and return it when it shows the size.

        `give_socket` is called before the kernel sends its first request.
        Raises InUseError if a device of this volume exists, ForbiddenError
        without CAP_SYS_ADMIN in the initial user namespace.
        """
        existing = self.find(export.identity)
        if existing is not None:
            raise InUseError(
                f"volume {export.identity} is attached already as {existing.path}"
            )
        index = self._connect(export, give_socket)
        device = Device(
            sysfs.DEVICES / f"nbd{index}", self.kind, export.identity, export.read_only
        )
        try:
            self._set_request_timeout(index)
            self._verify(device, export)
        except BaseException:
            with contextlib.suppress(DriverError):  # the first error is the one told
                self._disconnect(index, device)
            raise
        return device

    def _connect(self, export: NbdExport, give_socket: GiveSocket) -> int:
        server, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with kernel:
            try:
                give_socket(server)
            except BaseException:
                server.close()
                raise
            request = Connect(
                size=export.size,
                flags=export.flags,
                identifier=export.identity,
                socket=kernel.fileno(),
                dead_connection_timeout=self._dead_connection_seconds,
            )
            try:
                return self._control.connect(request)
            except NetlinkError as error:
                raise _explained(error, export.identity) from error

    def _set_request_timeout(self, index: int) -> None:
        path = sysfs.BLOCK / f"nbd{index}" / "queue" / "io_timeout"
        wanted = str(REQUEST_TIMEOUT_MS)
        try:
            bounded(f"writing {path}", self._timeout, lambda: path.write_text(wanted))
        except OSError as error:
            raise ForbiddenError(
                f"{path} cannot be written: {error}; the driver needs a writable /sys"
            ) from error
        found = sysfs.read_attribute(path)
        if found != wanted:
            raise InternalError(f"{path} reads {found!r} after {wanted} was written")

    def _verify(self, device: Device, export: NbdExport) -> None:
        sysfs.wait_until(
            lambda: sysfs.size(device.path.name) == export.size, self._timeout
        )
        found = sysfs.size(device.path.name)
        if found != export.size:
            raise InternalError(
                f"{device.path} of volume {export.identity} shows {found} bytes, "
                f"expected {export.size}"
            )
        read_only = sysfs.read_only(device.path.name)
        if read_only != export.read_only:
            raise InternalError(
                f"{device.path} of volume {export.identity} has read-only "
                f"{read_only}, expected {export.read_only}: see the export's flags"
            )
        if not sysfs.wait_until(
            lambda: sysfs.has_node(device.path.name), self._timeout
        ):
            raise NotFoundError(
                f"{device.path} did not appear: /dev of the node must be the kernel's "
                "devtmpfs"
            )

    def find(self, identity: str) -> Device | None:
        """Find the device whose backend string is this volume id."""
        for name in sysfs.names("nbd"):
            if not is_connected(name) or backend(name) != identity:
                continue
            read_only = sysfs.read_only(name)
            return Device(sysfs.DEVICES / name, self.kind, identity, read_only)
        return None

    def detach(self, device: Device, *, served: bool = True) -> None:
        """Disconnect; success if the device is already gone.

        Raises PreconditionError if it serves another volume, InUseError while
        it is mounted, here or in another mount namespace, with nothing changed
        then.  So it does for a process that keeps it open; the kernel does not
        tell of that one before, and its I/O has failed.
        """
        name = device.path.name
        if not is_connected(name):
            return
        self._require_ours(device)
        users = mounts.users(name)
        if users:
            raise InUseError(
                f"{device.path} of volume {device.identity} is mounted on "
                f"{users[0].mount_point}: unmount it first"
            )
        require_unclaimed(device, served=served)
        self._disconnect(_index(name), device)

    def _require_ours(self, device: Device) -> None:
        found = backend(device.path.name)
        if found != device.identity:
            raise PreconditionError(
                f"{device.path} serves {found or 'something without a name'}, not "
                f"volume {device.identity}: it is left alone"
            )

    def _disconnect(self, index: int, device: Device) -> None:
        try:
            self._control.disconnect(index)
        except NetlinkError as error:
            if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EINVAL}:
                raise _explained(error, device.identity) from error
            # The kernel no longer knows the connection; sysfs decides below.
        name = device.path.name
        self._let_go(name)
        if not sysfs.wait_until(lambda: not is_connected(name), self._timeout):
            raise InUseError(
                f"{device.path} of volume {device.identity} is disconnected but a "
                "process keeps it open: end that process and try again"
            )

    def cut_off(self, device: Device) -> None:
        """Fail all requests of a device whose server is dead, even mounted ones.

        A disconnected device that nobody has open is free for another volume.
        Where its node is shown to a pod, the device is kept open here until it
        is detached; if that is impossible, it stays as it is, and requests fail
        when the kernel has waited long enough for a server: UnavailableError.
        """
        name = device.path.name
        if backend(name) != device.identity:
            return
        if mounts.users(name) and name not in self._kept:
            self._keep(device)
        self._control.disconnect(_index(name))

    def _keep(self, device: Device) -> None:
        path = device.path
        try:
            self._kept[path.name] = bounded(
                f"opening {path}",
                CLAIM_SECONDS,
                lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK),
            )
        except OSError as error:
            raise UnavailableError(f"{path} cannot be kept: {error}") from error

    def _let_go(self, name: str) -> None:
        descriptor = self._kept.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def grow(self, device: Device, size: int, server_alive: ServerAlive) -> None:
        """Announce a larger size in bytes, to a live server only.

        Raises ExportLostError if the server is not alive; the kernel would
        otherwise wait for it inside the call, for ever.
        """
        name = device.path.name
        self._require_connected(device)
        self._require_ours(device)
        current = sysfs.size(name)
        if size == current:
            return
        if size < current:
            raise PreconditionError(
                f"{device.path} has {current} bytes and is not made smaller ({size})"
            )
        if not server_alive():
            raise ExportLostError(
                f"the export behind {device.path} of volume {device.identity} does "
                "not answer: it cannot grow before the volume is served again"
            )
        try:
            self._control.resize(_index(name), device.identity, size)
        except NetlinkError as error:
            raise _explained(error, device.identity) from error
        if not sysfs.wait_until(lambda: sysfs.size(name) == size, self._timeout):
            raise UnavailableError(
                f"{device.path} shows {sysfs.size(name)} bytes after it was grown "
                f"to {size}"
            )

    def reattach(self, device: Device, give_socket: GiveSocket) -> None:
        """Give the device a new server after the old one died.

        Sends sockets alone.  While the old socket still counts as alive, the
        kernel reports success and drops the new one: the server then reads
        end-of-file at once, and its owner calls again.
        """
        self._require_connected(device)
        self._require_ours(device)
        server, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with kernel:
            try:
                give_socket(server)
            except BaseException:
                server.close()
                raise
            try:
                self._control.reattach(
                    _index(device.path.name), device.identity, kernel.fileno()
                )
            except NetlinkError as error:
                raise _explained(error, device.identity) from error

    @staticmethod
    def _require_connected(device: Device) -> None:
        if not is_connected(device.path.name):
            raise ExportLostError(
                f"{device.path} of volume {device.identity} is not connected: the "
                "volume must be staged anew"
            )


def backend(name: str) -> str | None:
    """Return the backend string of nbdN, None where there is none."""
    return sysfs.read_attribute(sysfs.BLOCK / name / "backend")


def is_connected(name: str) -> bool:
    """Say whether nbdN has a configuration: a task connected it, or a size."""
    return (
        sysfs.read_attribute(sysfs.BLOCK / name / "pid") is not None
        or sysfs.size(name) > 0
    )


def _index(name: str) -> int:
    match = _NAME.match(name)
    if match is None:
        raise InternalError(f"{name!r} is not the name of an nbd device")
    return int(match.group(1))


def _explained(error: NetlinkError, identity: str) -> DriverError:
    match error.errno:
        case errno.EPERM:
            return ForbiddenError(
                f"volume {identity} cannot be attached: NBD needs CAP_SYS_ADMIN in "
                "the node's initial user namespace"
            )
        case errno.EBUSY:
            return InUseError(f"volume {identity}: {error}")
        case _:
            return InternalError(f"volume {identity}: {error}")
