# SPDX-License-Identifier: Apache-2.0
"""What kubectl writes when it fails, as the driver's own errors: one sentence.

Pure.  The forms are those of kubectl 1.27 to 1.36, which differ little.
"""

from __future__ import annotations

import re
from typing import Final

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.errors import UnsupportedError

_LOG_LINE: Final = re.compile(r"[EWIF][0-9]{4} [0-9:.]+ ")
_REASON: Final = re.compile(r"Error from server(?: \(\w+\))?: |error: ")
_REMOTE_STATUS: Final = re.compile(r"command terminated with exit code ([0-9]+)")

_CREDENTIALS: Final = (
    "the API server does not accept your credentials: log in anew, or choose others"
    " with --context or --kubeconfig"
)
_KINDS: Final[tuple[tuple[tuple[str, ...], type[DriverError], str], ...]] = (
    (
        ("is forbidden: ",),
        ForbiddenError,
        "ask an administrator of the cluster for that right",
    ),
    (
        ("unauthorized", "must be logged in"),
        ForbiddenError,
        _CREDENTIALS,
    ),
    (("error from server (notfound)",), NotFoundError, ""),
    (("the server doesn't have a resource type",), UnsupportedError, ""),
    (
        (
            "error in configuration",
            "invalid configuration",
            "no configuration has been provided",
            "no such file or directory",
            "does not exist",
        ),
        InvalidRequestError,
        "look at `kubectl config get-contexts`, --context and --kubeconfig",
    ),
    (
        (
            "was refused - did you specify",
            "unable to connect to the server",
            "connection reset by peer",
            "i/o timeout",
            "context deadline exceeded",
            "tls handshake timeout",
            "no route to host",
        ),
        UnavailableError,
        "is the cluster of this context up and in reach?",
    ),
)
"""What a line holds, what it is then, and what can be done; the first counts."""


def words_of(errors: str) -> list[str]:
    """Return kubectl's lines without its log and without what has no text."""
    lines = [line.strip() for line in errors.splitlines()]
    return [line for line in lines if line and not _LOG_LINE.match(line)]


def remote_status(errors: str) -> int | None:
    """Return the exit status of the command in the pod; None if kubectl failed."""
    for line in reversed(words_of(errors)):
        if match := _REMOTE_STATUS.search(line):
            return int(match.group(1))
    return None


def explained(errors: str, doing: str) -> DriverError:
    """Return the error for what a failed kubectl wrote; `doing` opens the message."""
    lines = words_of(errors)
    last = lines[-1] if lines else "kubectl said nothing"
    text = f"{doing}: {_REASON.sub('', last, count=1)}"
    for needles, kind, advice in _KINDS:
        if any(each in last.lower() for each in needles):
            return kind(f"{text}; {advice}" if advice else text)
    return PreconditionError(text)
