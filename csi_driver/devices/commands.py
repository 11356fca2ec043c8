# SPDX-License-Identifier: Apache-2.0
"""The one place that runs outside tools: mkfs, mount, blkid and their like.

A tool gets an argument list (no shell), a fixed small environment, no input
and no descriptor of ours, and a bounded time.  What its exit code means is
left to the caller.  No secret is ever passed this way.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.errors import UnsupportedError

SEARCH_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": SEARCH_PATH, "LC_ALL": "C"}
DEFAULT_TIMEOUT: Final = 60.0

_KILL_GRACE: Final = 5.0
_SHOWN_CHARACTERS: Final = 1000
_SHOWN_HEAD: Final = 600


@dataclass(frozen=True, slots=True)
class Completed:
    """A tool that has ended: its arguments, exit code and output."""

    arguments: tuple[str, ...]
    code: int
    output: str
    errors: str

    def complaint(self) -> str:
        """One line: the tool, its exit code, and what it wrote, shortened."""
        text = " ".join((self.errors or self.output).split())
        if len(text) > _SHOWN_CHARACTERS:
            text = f"{text[:_SHOWN_HEAD]} … {text[_SHOWN_HEAD - _SHOWN_CHARACTERS :]}"
        ended = (
            f"was ended by {signal.Signals(-self.code).name}"
            if self.code < 0
            else f"failed with exit code {self.code}"
        )
        return f"{self.arguments[0]} {ended}: {text or 'no message'}"


def find(tool: str) -> str | None:
    """Return the path of a tool in the fixed search path, or None."""
    return shutil.which(tool, path=SEARCH_PATH)


def run(arguments: Sequence[str], *, timeout: float = DEFAULT_TIMEOUT) -> Completed:
    """Run a tool to its end and return what it said, whatever its exit code.

    Raises UnsupportedError if the tool is not installed, UnavailableError when
    `timeout` seconds are over (the tool is then killed).
    """
    path = find(arguments[0])
    if path is None:
        message = f"the tool {arguments[0]!r} is not installed in {SEARCH_PATH}"
        raise UnsupportedError(message)
    process = subprocess.Popen(
        [path, *arguments[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(ENVIRONMENT),
        close_fds=True,
        start_new_session=True,  # a terminal's Ctrl-C must not break a mkfs
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _abandon(process)
        message = (
            f"{arguments[0]} did not end within {timeout:g} s: "
            f"{' '.join(arguments)}; the device or Ceph may not be answering"
        )
        raise UnavailableError(message) from error
    return Completed(
        tuple(arguments),
        process.returncode,
        output.decode(errors="replace"),
        errors.decode(errors="replace"),
    )


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Kill a tool, and leave it to a thread if the kernel does not let it go.

    A task waiting for a block device ignores SIGKILL until the device answers.
    """
    process.kill()
    try:
        process.communicate(timeout=_KILL_GRACE)
    except subprocess.TimeoutExpired:
        threading.Thread(
            target=process.communicate, name="abandoned tool", daemon=True
        ).start()


def check(arguments: Sequence[str], *, timeout: float = DEFAULT_TIMEOUT) -> Completed:
    """Run a tool that has to succeed; InternalError with its message if not."""
    completed = run(arguments, timeout=timeout)
    if completed.code:
        raise InternalError(completed.complaint())
    return completed
