# SPDX-License-Identifier: Apache-2.0
"""One socket in kubelet's plugins_registry, from its making to its end.

It is made under a hidden name, which kubelet passes over, and renamed when it is
served and belongs to root alone: kubelet dials what it sees at once.  The name
is another one each time, for gRPC removes, some time after a server has ended,
whatever has the name that it once bound.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc

from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc import endpoint
from csi_driver.rpc.stubs import pluginregistration_pb2_grpc as pb2_grpc

_MODE: Final = 0o600
_THREADS: Final = 2
_GRACE: Final = 1.0
_numbers: Final = itertools.count()


class StaleDirectoryError(UnavailableError):
    """The directory was removed; a mount keeps showing it to this process."""


class RegistrationSocket:
    """A socket that kubelet finds; served from its making on."""

    def __init__(self, path: Path, servicer: pb2_grpc.RegistrationServicer) -> None:
        """UnavailableError says why there can be none at `path`."""
        self._path = path
        _require_directory(path.parent)
        try:
            endpoint.clear(path)
        except endpoint.TakenError as error:
            message = f"{error}; kubelet knows one driver of a name on each node"
            raise UnavailableError(message) from error
        for leftover in path.parent.glob(f".{path.name}.*"):
            leftover.unlink(missing_ok=True)
        self._threads = ThreadPoolExecutor(_THREADS, "registration")
        self._server = grpc.server(self._threads)
        pb2_grpc.add_RegistrationServicer_to_server(servicer, self._server)
        hidden = path.with_name(f".{path.name}.{next(_numbers)}")
        try:
            self._server.add_insecure_port(f"unix:{hidden}")
            hidden.chmod(_MODE)
            self._server.start()
            found = hidden.lstat()
            self._identity = (found.st_dev, found.st_ino)
            hidden.rename(path)
        except (OSError, RuntimeError) as error:
            self._stop()
            hidden.unlink(missing_ok=True)
            reason = (
                isinstance(error, OSError) and error.strerror
            ) or "see what gRPC printed"
            message = f"there can be no registration socket at {path}: {reason}"
            raise UnavailableError(message) from error

    @property
    def in_place(self) -> bool:
        """Whether kubelet still finds this very socket."""
        return _identity(self._path) == self._identity

    def close(self) -> None:
        """End it; if it is still in place, kubelet forgets the driver."""
        if self.in_place:
            self._path.unlink(missing_ok=True)
        self._stop()

    def _stop(self) -> None:
        self._server.stop(_GRACE).wait()
        self._threads.shutdown(wait=False)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a socket from another one at its path.

    The number is not given to another file while somebody listens on it.
    """
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _require_directory(directory: Path) -> None:
    try:
        found = directory.stat()
    except OSError as error:
        message = (
            f"{directory} is not kubelet's plugins_registry: {error.strerror}; mount"
            " /var/lib/kubelet/plugins_registry of the host there"
        )
        raise UnavailableError(message) from error
    if not found.st_nlink:
        message = (
            f"kubelet's plugins_registry was removed, and {directory} still shows the"
            " old one: only a restart of this container mounts the new one"
        )
        raise StaleDirectoryError(message)
