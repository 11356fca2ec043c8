# SPDX-License-Identifier: Apache-2.0
"""A listening unix socket that only its owner may connect to."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Final

from csi_driver.domain.errors import PreconditionError

_BACKLOG: Final = 16


def listen(path: Path) -> socket.socket:
    """Return a non-blocking listening socket at `path`, of mode 0600.

    A socket that nobody listens on, left behind by a killed process, is
    replaced.  Raises PreconditionError when the place is taken otherwise.
    """
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Linux gives the new node the mode of the socket, so there is no
        # moment in which others could connect.
        os.fchmod(sock.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise PreconditionError(
            f"cannot listen on {path}: {error.strerror or error}"
        ) from error
    return sock


def _clear(path: Path) -> None:
    """Remove a dead socket from `path`; leave anything else alone."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise PreconditionError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise PreconditionError(f"another server listens on {path}")
