# SPDX-License-Identifier: Apache-2.0
"""Devices without the kernel's NBD client: nbdfuse shows a file, loop binds it.

`nbdfuse` (Debian libnbd-bin) connects to the export's unix socket and shows it
as a file in DIRECTORY/mnt; a loop device with direct I/O and 4096-byte sectors
makes a block device of that.  nbdfuse asks for the size only once, so the export
announces a fixed ceiling there; the loop's size limit is the true size and is
raised when the volume grows.  The server refuses I/O beyond the true size.

nbdfuse is a child of the process that calls `attach`, which must therefore be
long-lived (the datapath).  When nbdfuse or the server dies, the device only
returns I/O errors; `detach` cleans up what is left.  Every path is derived from
the volume id, so nothing of another volume is ever touched.

Whose loop device it is stands in the name of its file, which the kernel shows to
everybody.  Only the name is asked for: once the mount namespace of the file is
gone, a container's, nothing is left of the directories above it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from csi_driver.devices import commands
from csi_driver.devices import fuse_export
from csi_driver.devices import loop
from csi_driver.devices import mounts
from csi_driver.devices import process_space
from csi_driver.devices import sysfs
from csi_driver.devices.claims import require_unclaimed
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.device import GiveSocket
from csi_driver.devices.device import NbdExport
from csi_driver.devices.device import ProcessMark
from csi_driver.devices.device import ServerAlive
from csi_driver.devices.device import process_descriptor
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnavailableError

FUSE: Final = Path("/dev/fuse")
TOOL: Final = "nbdfuse"

_MOUNT_NAME: Final = "mnt"
_POLL_SECONDS: Final = 0.005


class FuseLoop:
    """Attaches exports through nbdfuse and loop devices."""

    kind: Final = DeviceKind.FUSE

    def __init__(self, directory: Path, *, timeout: float = 20.0) -> None:
        """Mount points live in `directory`; `timeout` seconds bound each step."""
        self._directory = directory
        self._timeout = timeout
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def available(self) -> str | None:
        """Say what this node lacks, or None if nothing."""
        for tool in (TOOL, fuse_export.TOOL):
            if commands.find(tool) is None:
                return f"{tool} is not installed (Debian package libnbd-bin)"
        for path in (FUSE, loop.CONTROL):
            if not path.exists():
                return f"{path} does not exist: the kernel module is not loaded"
        return None

    def _home(self, identity: str) -> Path:
        return self._directory.resolve() / _digest(identity)

    def _mount_point(self, identity: str) -> Path:
        return self._home(identity) / _MOUNT_NAME

    def _backing(self, identity: str) -> Path:
        """Return the file, named after the volume and after this directory.

        Two datapaths of one kernel, nodes of a test, may serve the same volume, from
        directories whose paths may be the same in their mount namespaces.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        seen = self._directory.stat()
        place = _digest(f"{seen.st_dev} {seen.st_ino}")[:8]
        return self._mount_point(identity) / f"{_digest(identity)}-{place}"

    def attach(
        self,
        export: NbdExport,
        give_socket: GiveSocket,  # noqa: ARG002  the kernel's way needs it
    ) -> Device:
        """Start nbdfuse and bind a loop device to its file.

        `give_socket` is not used: nbdfuse connects to `export.socket_path`.
        Raises InUseError if the volume has a device, UnavailableError if the
        export does not answer, SizeError if it is smaller than `export.size`.
        """
        existing = loop.find(self._backing(export.identity).name)
        if existing is not None:
            raise InUseError(
                f"volume {export.identity} is attached already as {existing}"
            )
        self._clear(export.identity, self._stored_process(export.identity))
        fuse_export.require_safe(export, self._timeout)
        process: ProcessMark | None = None
        try:
            with _explaining(export.identity):
                process = self._start(export)
                path = self._bind(export)
        except BaseException as error:
            self._undo(export.identity, process, error)
            raise
        return Device(path, self.kind, export.identity, export.read_only, process)

    def _undo(
        self, identity: str, process: ProcessMark | None, reason: BaseException
    ) -> None:
        try:
            self._clear(identity, process or self._stored_process(identity))
        except DriverError as error:
            reason.add_note(f"cleaning up failed too: {error}")

    def _start(self, export: NbdExport) -> ProcessMark:
        mount_point = self._mount_point(export.identity)
        mount_point.mkdir(mode=0o700, parents=True)
        tool = commands.find(TOOL)
        if tool is None:
            raise UnavailableError(f"{TOOL} is not installed")
        arguments = [tool, "--readonly"] if export.read_only else [tool]
        arguments += [
            str(self._backing(export.identity)),
            fuse_export.export_uri(export),
        ]
        # A datagram socket takes its messages: unlike a file it never grows, and
        # unlike a pipe it does not kill the writer when nobody listens any more.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=theirs.fileno(),
                env=dict(commands.ENVIRONMENT),
                close_fds=True,
                start_new_session=True,  # Ctrl-C must not end it under a mount
            )
            self._children[child.pid] = child
            process = ProcessMark.of(child.pid)
            if process is None:
                raise InternalError(f"{TOOL} vanished before it was waited for")
            self._store_process(export.identity, process)
            self._wait_for_file(export, child, ours)
        return process

    def _wait_for_file(
        self, export: NbdExport, child: subprocess.Popen[bytes], messages: socket.socket
    ) -> None:
        backing = self._backing(export.identity)
        deadline = time.monotonic() + self._timeout
        while not _is_file(backing):
            ended = child.poll() is not None
            if ended or time.monotonic() > deadline:
                happened = "ended" if ended else "showed no file in time"
                raise UnavailableError(
                    f"volume {export.identity} cannot be attached: {TOOL} {happened}: "
                    f"{_last_words(messages) or 'no message'}"
                )
            time.sleep(_POLL_SECONDS)

    def _bind(self, export: NbdExport) -> Path:
        backing = self._backing(export.identity)
        path = loop.bind(backing, export.size, read_only=export.read_only)
        shown = sysfs.size(path.name)
        if shown != export.size or sysfs.read_only(path.name) != export.read_only:
            raise InternalError(
                f"{path} of volume {export.identity} shows {shown} bytes, read-only "
                f"{sysfs.read_only(path.name)}; expected {export.size}, "
                f"{export.read_only}"
            )
        return path

    def find(self, identity: str) -> Device | None:
        """Find the loop device on this volume's file, served or dead."""
        path = loop.find(self._backing(identity).name)
        if path is None:
            return None
        process = self._stored_process(identity)
        return Device(path, self.kind, identity, sysfs.read_only(path.name), process)

    def detach(self, device: Device, *, served: bool = True) -> None:
        """Release the loop device, unmount nbdfuse, wait for its end.

        Also removes what a crash left of this volume.  Raises
        PreconditionError if the loop device is bound to something else,
        InUseError while it is mounted anywhere or kept open.
        """
        if loop.backing_file(device.path.name) is not None:
            self._require_ours(device)
            users = mounts.users(device.path.name)
            if users:
                raise InUseError(
                    f"{device.path} of volume {device.identity} is mounted on "
                    f"{users[0].mount_point}: unmount it first"
                )
            require_unclaimed(device, served=served)
        stored = self._stored_process(device.identity)
        self._clear(device.identity, device.process or stored)

    def _require_ours(self, device: Device) -> None:
        found = loop.backing_file(device.path.name)
        if found is None or found.name != self._backing(device.identity).name:
            raise PreconditionError(
                f"{device.path} is bound to {found or 'nothing'}, not to volume "
                f"{device.identity}: it is left alone"
            )

    def grow(self, device: Device, size: int, server_alive: ServerAlive) -> None:
        """Raise the loop's size limit to `size` bytes.

        Raises ExportLostError when nbdfuse or the server is gone, SizeError
        beyond the ceiling that the export announced when it was attached.
        """
        self._require_ours(device)
        current = sysfs.size(device.path.name)
        if size == current:
            return
        if size < current:
            raise PreconditionError(
                f"{device.path} has {current} bytes and is not made smaller ({size})"
            )
        if not self.process_alive(device) or not server_alive():
            raise ExportLostError(
                f"the export behind {device.path} of volume {device.identity} is dead: "
                "the volume must be staged anew"
            )
        with _explaining(device.identity):
            ceiling = self._backing(device.identity).stat().st_size
        if size > ceiling:
            raise SizeError(
                f"volume {device.identity} grows online up to {ceiling} bytes here, "
                f"not to {size}: unstage it, then it can grow further"
            )
        loop.resize(device.path, size)
        shown = sysfs.size(device.path.name)
        if shown != size:
            raise InternalError(
                f"{device.path} shows {shown} bytes after it was grown to {size}"
            )

    @staticmethod
    def process_alive(device: Device) -> bool:
        """Say whether the device's nbdfuse still runs."""
        mark = device.process
        return mark is not None and not mark.wait_gone(0)

    def _clear(self, identity: str, process: ProcessMark | None) -> None:
        """Remove loop, mount, process and directory of one volume, as far as any."""
        with _explaining(identity):
            self._remove(identity, process)

    def _remove(self, identity: str, process: ProcessMark | None) -> None:
        path = loop.find(self._backing(identity).name)
        if path is not None:
            loop.release(path, self._timeout)
        self._unmount(identity)
        if process is not None:
            self._end_process(process)
        home = self._home(identity)
        (home / "process").unlink(missing_ok=True)
        for directory in (home / _MOUNT_NAME, home):
            if directory.exists():
                directory.rmdir()

    def _unmount(self, identity: str) -> None:
        """Unmount our own mount point; lazily if it stays busy or is dead."""
        mount_point = self._mount_point(identity)

        def unmounted() -> bool:
            here = mounts.at(mounts.read_mounts(), mount_point)
            return not here or mounts.unmount_once(mount_point) is None

        if sysfs.wait_until(unmounted, 2.0):
            return
        reason = mounts.unmount_once(mount_point, lazy=True)
        if reason is not None:
            raise InUseError(f"{mount_point} cannot be unmounted: {reason}")

    def _end_process(self, process: ProcessMark) -> None:
        """Wait for nbdfuse, which ends when it is unmounted; else kill it."""
        if not process.wait_gone(self._timeout / 2):
            _kill(process)
            if not process.wait_gone(self._timeout / 2):
                raise UnavailableError(
                    f"{TOOL} (process {process.pid}) does not end after SIGKILL"
                )
        child = self._children.pop(process.pid, None)
        if child is not None:
            child.wait()

    def _store_process(self, identity: str, process: ProcessMark) -> None:
        here = f"{process_space.pid_namespace()} {process_space.boot_id()}"
        text = f"{process.pid} {process.started} {here}\n"
        (self._home(identity) / "process").write_text(text)

    def _stored_process(self, identity: str) -> ProcessMark | None:
        try:
            text = (self._home(identity) / "process").read_text()
            pid, started, namespace, boot = text.split()
            mark = ProcessMark(int(pid), int(started))
        except (FileNotFoundError, ValueError):
            return None  # a crash before or while it was written
        # In another container its id means nothing here; it ends with its mount.
        here = (str(process_space.pid_namespace()), process_space.boot_id())
        return mark if (namespace, boot) == here else None


def is_file_of(backing: Path, identity: str) -> bool:
    """Say whether a loop device's file is a volume's, of whatever datapath."""
    return backing.name.startswith(f"{_digest(identity)}-")


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


@contextmanager
def _explaining(identity: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InternalError(f"the device of volume {identity}: {error}") from error


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False  # not mounted yet, or nbdfuse is already gone


def _last_words(messages: socket.socket) -> str:
    parts: list[bytes] = []
    messages.setblocking(False)
    while True:
        try:
            parts.append(messages.recv(4096))
        except BlockingIOError:
            return " ".join(b"".join(parts).decode(errors="replace").split())


def _kill(process: ProcessMark) -> None:
    descriptor = process_descriptor(process.pid)
    if descriptor is None:
        return
    try:
        if ProcessMark.of(process.pid) == process:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
