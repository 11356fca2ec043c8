# SPDX-License-Identifier: Apache-2.0
"""What is attached, and what attaching needs: the words of this package.

A `Device` is written into the node's state as JSON and read after a restart,
so it holds everything that a later detach has to know.  Doing the work is left
to `kernel_nbd` and `fuse_loop`.
"""

from __future__ import annotations

import errno
import json
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from os import close
from os import pidfd_open
from pathlib import Path
from typing import Final
from typing import Protocol
from typing import Self

from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError

BLOCK_SIZE: Final = 4096
MAX_IDENTITY_BYTES: Final = 128
FORMAT_VERSION: Final = 1

type GiveSocket = Callable[[socket.socket], None]
"""Takes over the server's end of a socketpair, in NBD's transmission phase.

The receiver owns the socket from then on, and closes its own copy if it passes
it to another process.
"""

type ServerAlive = Callable[[], bool]
"""Says whether the server behind a device answers now."""


class DeviceKind(StrEnum):
    """How a device came to be."""

    KERNEL = "kernel"
    FUSE = "fuse"


@dataclass(frozen=True, slots=True)
class NbdExport:
    """One export to be attached.

    `identity` is the volume id (at most 128 bytes); `size` the bytes to show,
    a multiple of 4096; `flags` NBD's transmission flags for the kernel;
    `socket_path` the unix socket with the newstyle handshake, which only the
    fallback needs; `name` the export's name on that socket.
    """

    identity: str
    size: int
    read_only: bool
    flags: int
    socket_path: Path | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Raise InvalidRequestError for an unusable identity or size."""
        length = len(self.identity.encode())
        printable = self.identity.isprintable()
        if not 0 < length <= MAX_IDENTITY_BYTES or not printable:
            raise InvalidRequestError(
                f"a device's identity has 1 to {MAX_IDENTITY_BYTES} printable bytes, "
                f"not {self.identity!r}"
            )
        if self.size <= 0 or self.size % BLOCK_SIZE:
            raise InvalidRequestError(
                f"an export of {self.size} bytes is no positive multiple of "
                f"{BLOCK_SIZE} bytes"
            )


def process_descriptor(pid: int) -> int | None:
    """Return a pidfd, or None if there is no such process.

    The number may be that of a thread by now: a new container begins to count at 1
    again, and its threads take the numbers of the old one's processes.
    """
    try:
        return pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno in _A_THREAD:
            return None
        raise


_A_THREAD: Final = frozenset({errno.EINVAL, errno.ENOENT})
"""What pidfd_open(2) says of a thread's id: EINVAL, since Linux 6.15 ENOENT."""


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """A process told apart from later ones under the same number.

    `started` is field 22 of /proc/PID/stat: clock ticks since boot.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Mark a process, or None if it does not exist."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command, field 2, is in brackets and may hold spaces and brackets.
        fields = text[text.rindex(")") + 2 :].split()
        return cls(pid, int(fields[19]))

    def wait_gone(self, seconds: float) -> bool:
        """Wait for the process to end; True if it has (a zombie has ended)."""
        descriptor = process_descriptor(self.pid)
        if descriptor is None:
            return True
        try:
            if ProcessMark.of(self.pid) != self:
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        finally:
            close(descriptor)


@dataclass(frozen=True, slots=True)
class Device:
    """A block device that serves one volume.

    `process` is the nbdfuse behind a loop device; the kernel's NBD client
    needs none.
    """

    path: Path
    kind: DeviceKind
    identity: str
    read_only: bool
    process: ProcessMark | None = None

    def to_json(self) -> str:
        """Return the device as one JSON object, with the format's version."""
        process = self.process and [self.process.pid, self.process.started]
        return json.dumps(
            {
                "version": FORMAT_VERSION,
                "path": str(self.path),
                "kind": self.kind.value,
                "identity": self.identity,
                "read_only": self.read_only,
                "process": process,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; InternalError for anything else."""
        try:
            fields = json.loads(text)
            version = fields["version"]
            if version != FORMAT_VERSION:
                raise InternalError(f"a device of version {version!r} is not known")
            process = fields["process"]
            return cls(
                Path(fields["path"]),
                DeviceKind(fields["kind"]),
                str(fields["identity"]),
                _boolean(fields["read_only"]),
                None if process is None else ProcessMark(*map(int, process)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InternalError(f"a stored device cannot be read: {error}") from error


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value


class AttachMethod(Protocol):
    """One way from an export to a device.  Calls on one volume never overlap."""

    @property
    def kind(self) -> DeviceKind:
        """The kind of the devices it makes."""

    def available(self) -> str | None:
        """Say why this node cannot use it, or None if it can."""

    def attach(self, export: NbdExport, give_socket: GiveSocket) -> Device:
        """Make the device and return it when it shows the export's size.

        On failure nothing is left behind.
        """

    def detach(self, device: Device, *, served: bool = True) -> None:
        """Remove the device, if it is this volume's; nothing to do is success.

        Without `served` its server is dead, and a device that cannot be opened in
        time is in nobody's use; otherwise that is InUseError.
        """

    def grow(self, device: Device, size: int, server_alive: ServerAlive) -> None:
        """Show a larger size in bytes; the server must be answering."""

    def find(self, identity: str) -> Device | None:
        """Find the device that serves a volume, without any stored state."""
