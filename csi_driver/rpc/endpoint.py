# SPDX-License-Identifier: Apache-2.0
"""The unix socket of a server: its address, and what may stand in its place.

CSI wants a unix socket whose path ends in `.sock`.  A socket left over from a
process that is gone is removed; anything else in its place is an error.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import UnavailableError

LONGEST_SOCKET_PATH: Final = 107
"""Bytes of a socket's path (unix(7), sun_path without its NUL)."""

LONGEST_HIDDEN_PATH: Final = LONGEST_SOCKET_PATH - 8
"""Bytes of a socket's path that is first made under a hidden, longer name."""

_MASK: Final = 0o117
"""Leaves 0660: only this user, and the group that fsGroup gives sidecars."""


class TakenError(UnavailableError):
    """Another process listens where the socket is to be."""


def parse_endpoint(text: str) -> Path:
    """Return the path of `unix:///path`, `unix:/path` or `unix://path`.

    A relative path is taken from the working directory.  InvalidRequestError
    says what is wrong with an endpoint.
    """
    scheme, found, rest = text.partition(":")
    if not found or scheme.lower() != "unix":
        message = (
            f"CSI_ENDPOINT {text!r} is no unix socket: write unix:///path/csi.sock"
        )
        raise InvalidRequestError(message)
    path = Path(rest.removeprefix("//")).absolute()
    if path.suffix != ".sock":
        message = f"the path of CSI_ENDPOINT {text!r} does not end in .sock"
        raise InvalidRequestError(message)
    length = len(os.fsencode(path))
    if length > LONGEST_SOCKET_PATH:
        message = (
            f"the path of CSI_ENDPOINT {text!r} has {length} bytes, a unix socket"
            f" takes {LONGEST_SOCKET_PATH}"
        )
        raise InvalidRequestError(message)
    return path


def clear(path: Path) -> None:
    """Make room for a socket, and for its directory.

    TakenError if somebody listens there, UnavailableError if something else is
    there.
    """
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"there can be no socket at {path}: {error.strerror}"
        raise UnavailableError(message) from error
    if not stat.S_ISSOCK(mode):
        message = f"{path} exists and is no socket: remove it"
        raise UnavailableError(message)
    if _somebody_listens(path):
        message = (
            f"another process listens on {path}: stop it first; whether it is a second"
            " driver of this name, `kubectl rbdcrypt doctor` says"
        )
        raise TakenError(message)
    path.unlink()


@contextlib.contextmanager
def private_sockets() -> Iterator[None]:
    """Let sockets made inside belong to this user and group alone."""
    before = os.umask(_MASK)
    try:
        yield
    finally:
        os.umask(before)


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError as error:
            message = f"whether somebody listens on {path} is not known: {error}"
            raise UnavailableError(message) from error
    return True
