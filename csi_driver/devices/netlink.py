# SPDX-License-Identifier: Apache-2.0
"""The netlink family `nbd`: what the kernel's NBD client can be told.

Requests are built by pure functions; `NbdControl` sends them.  When to send
what, and whose device it is, is left to `kernel_nbd`.

Numbers: Linux include/uapi/linux/nbd-netlink.h.  Rules that avoid hanging the
kernel (read in Linux 6.12 drivers/block/nbd.c, and measured there):

* TIMEOUT goes with every CONNECT as 0: without it the device inherits the
  request timeout of its previous user, and a value makes slow requests fatal.
* TIMEOUT never goes with RECONFIGURE: even 0 resets the request timeout.
* A size never travels with sockets, nor while the server is gone: the kernel
  would wait for requests that nobody answers, for ever, holding the lock of
  generic netlink.
"""

from __future__ import annotations

import struct
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Final

from csi_driver.devices import commands
from csi_driver.devices import genetlink
from csi_driver.devices.genetlink import GenericNetlink
from csi_driver.devices.genetlink import MalformedMessageError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import UnavailableError

FAMILY: Final = "nbd"
VERSION: Final = 1

CMD_CONNECT: Final = 1
CMD_DISCONNECT: Final = 2
CMD_RECONFIGURE: Final = 3
CMD_STATUS: Final = 5

ATTR_INDEX: Final = 1
ATTR_SIZE_BYTES: Final = 2
ATTR_BLOCK_SIZE_BYTES: Final = 3
ATTR_TIMEOUT: Final = 4
ATTR_SERVER_FLAGS: Final = 5
ATTR_SOCKETS: Final = 7
ATTR_DEAD_CONN_TIMEOUT: Final = 8
ATTR_DEVICE_LIST: Final = 9
ATTR_BACKEND_IDENTIFIER: Final = 10
SOCK_ITEM: Final = 1
SOCK_FD: Final = 1
DEVICE_ITEM: Final = 1
DEVICE_INDEX: Final = 1
DEVICE_CONNECTED: Final = 2

BLOCK_SIZE: Final = 4096


@dataclass(frozen=True, slots=True)
class Connect:
    """A new device: `size` in bytes, `flags` as in the NBD transmission phase.

    `dead_connection_timeout` (seconds): how long requests wait for a new
    server after the old one died.  `index` None lets the kernel choose.
    """

    size: int
    flags: int
    identifier: str
    socket: int
    dead_connection_timeout: int
    index: int | None = None


def _u32(payload: bytes | None, what: str) -> int:
    if payload is None or len(payload) != struct.calcsize("=I"):
        message = f"the kernel's nbd reply holds no {what}"
        raise MalformedMessageError(message)
    (value,) = struct.unpack("=I", payload)
    return int(value)


def _sockets(*descriptors: int) -> bytes:
    items = (
        genetlink.nested(SOCK_ITEM, genetlink.attribute_u32(SOCK_FD, descriptor))
        for descriptor in descriptors
    )
    return genetlink.nested(ATTR_SOCKETS, *items)


def connect_attributes(request: Connect) -> tuple[bytes, ...]:
    """Attributes of CONNECT: one socket, 4096-byte blocks, no request timeout."""
    index = (
        ()
        if request.index is None
        else (genetlink.attribute_u32(ATTR_INDEX, request.index),)
    )
    return (
        *index,
        genetlink.attribute_u64(ATTR_SIZE_BYTES, request.size),
        genetlink.attribute_u64(ATTR_BLOCK_SIZE_BYTES, BLOCK_SIZE),
        genetlink.attribute_u64(ATTR_TIMEOUT, 0),
        genetlink.attribute_u64(ATTR_SERVER_FLAGS, request.flags),
        genetlink.attribute_u64(
            ATTR_DEAD_CONN_TIMEOUT, request.dead_connection_timeout
        ),
        genetlink.attribute_string(ATTR_BACKEND_IDENTIFIER, request.identifier),
        _sockets(request.socket),
    )


def resize_attributes(index: int, identifier: str, size: int) -> tuple[bytes, ...]:
    """Attributes of RECONFIGURE for a new size in bytes, and nothing else."""
    return (
        genetlink.attribute_u32(ATTR_INDEX, index),
        genetlink.attribute_string(ATTR_BACKEND_IDENTIFIER, identifier),
        genetlink.attribute_u64(ATTR_SIZE_BYTES, size),
    )


def reattach_attributes(index: int, identifier: str, socket: int) -> tuple[bytes, ...]:
    """Attributes of RECONFIGURE for a new server socket, and nothing else."""
    return (
        genetlink.attribute_u32(ATTR_INDEX, index),
        genetlink.attribute_string(ATTR_BACKEND_IDENTIFIER, identifier),
        _sockets(socket),
    )


def parse_status(reply: dict[int, bytes]) -> dict[int, bool]:
    """Read a STATUS reply: device index -> connected.

    "Connected" only means that the kernel holds a reference to the device's
    configuration; whether a server answers is not said anywhere.
    """
    devices: dict[int, bool] = {}
    listing = reply.get(ATTR_DEVICE_LIST, b"")
    for _, item in genetlink.parse_attributes(listing):
        fields = dict(genetlink.parse_attributes(item))
        index = _u32(fields.get(DEVICE_INDEX), "device index")
        devices[index] = fields.get(DEVICE_CONNECTED, b"\0") != b"\0"
    return devices


def bounded[Result](what: str, seconds: float, call: Callable[[], Result]) -> Result:
    """Run a call that the kernel may never finish, in a thread of its own.

    Raises UnavailableError after `seconds`; the thread stays behind, since a
    task stuck in the kernel cannot be ended.
    """
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  carried to the caller
            outcome.set_exception(error)

    threading.Thread(target=work, name=what, daemon=True).start()
    try:
        return outcome.result(seconds)
    except FutureTimeoutError as error:
        if outcome.done():
            raise  # the call itself ran into a timeout of its own
        raise UnavailableError(
            f"{what} has not returned from the kernel within {seconds:g} s; "
            "see the kernel log of this node, it may need a restart"
        ) from error


class NbdControl:
    """Sends the commands of the family, each on a socket and thread of its own."""

    def __init__(self, timeout: float = 20.0) -> None:
        """`timeout` in seconds bounds each command."""
        self._timeout = timeout

    def _send(
        self, name: str, command: int, *attributes: bytes
    ) -> tuple[dict[int, bytes], ...]:
        def call() -> tuple[dict[int, bytes], ...]:
            with GenericNetlink() as netlink:
                family = netlink.resolve(FAMILY)
                return netlink.request(name, family, command, VERSION, *attributes)

        try:
            return bounded(name, self._timeout, call)
        except OSError as error:
            raise UnavailableError(f"{name} got no answer: {error}") from error

    def available(self) -> str | None:
        """Say why the kernel's NBD client cannot be used, or None if it can.

        Loads the module if that is permitted.
        """
        reason = self._resolve()
        if reason is not None and self._load_module():
            reason = self._resolve()
        return reason

    def _resolve(self) -> str | None:
        def call() -> int:
            with GenericNetlink() as netlink:
                return netlink.resolve(FAMILY)

        try:
            bounded("resolving the netlink family nbd", self._timeout, call)
        except (OSError, DriverError) as error:
            return f"this kernel offers no nbd over netlink: {error}"
        return None

    @staticmethod
    def _load_module() -> bool:
        try:
            return commands.run(["modprobe", "nbd"], timeout=30).code == 0
        except (OSError, DriverError, subprocess.SubprocessError):
            return False  # no modprobe here: the reason found before stands

    def connect(self, request: Connect) -> int:
        """Make a device and return its index.  Raises NetlinkError."""
        replies = self._send(
            "NBD_CMD_CONNECT", CMD_CONNECT, *connect_attributes(request)
        )
        reply = replies[0] if replies else {}
        return _u32(reply.get(ATTR_INDEX), "device index")

    def resize(self, index: int, identifier: str, size: int) -> None:
        """Announce a new size in bytes.  Only while a server answers."""
        attributes = resize_attributes(index, identifier, size)
        self._send("NBD_CMD_RECONFIGURE (size)", CMD_RECONFIGURE, *attributes)

    def reattach(self, index: int, identifier: str, socket: int) -> None:
        """Replace a dead socket.

        With the old one still alive the kernel reports success and drops the
        new one: the server then sees end-of-file at once and asks again.
        """
        attributes = reattach_attributes(index, identifier, socket)
        self._send("NBD_CMD_RECONFIGURE (socket)", CMD_RECONFIGURE, *attributes)

    def disconnect(self, index: int) -> None:
        """End the connection; outstanding requests fail with EIO."""
        attribute = genetlink.attribute_u32(ATTR_INDEX, index)
        self._send("NBD_CMD_DISCONNECT", CMD_DISCONNECT, attribute)

    def status(self) -> dict[int, bool]:
        """Return index -> connected for every nbd device; see `parse_status`."""
        replies = self._send("NBD_CMD_STATUS", CMD_STATUS)
        return parse_status(replies[0]) if replies else {}
