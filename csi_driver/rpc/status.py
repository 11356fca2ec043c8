# SPDX-License-Identifier: Apache-2.0
"""The one table from failures to gRPC status codes.

A class without an entry takes that of its nearest base.  What is no
`DriverError` is a bug: the caller gets INTERNAL with an incident number, the
traceback goes to the log.  Status details stay empty, as CSI asks.
"""

from __future__ import annotations

import dataclasses
import uuid
from typing import Final

import grpc

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.errors import UnsupportedError

LONGEST_MESSAGE: Final = 1500
"""Characters.  The message travels percent-encoded in a header, of which
clients accept 8 KiB in total unless told otherwise."""


class NotOfferedError(UnsupportedError):
    """The whole RPC is not offered; its capability is not advertised."""


class DeadlineError(UnavailableError):
    """The time of the call is over; its work may still be going on."""


class CallerGoneError(DriverError):
    """The caller cancelled the call or hung up."""


_CODES: Final[dict[type[DriverError], grpc.StatusCode]] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    PendingError: grpc.StatusCode.ABORTED,
    PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    SizeError: grpc.StatusCode.OUT_OF_RANGE,
    ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    SecretError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    # UNIMPLEMENTED tells a CO not to call the RPC again.  An RPC that is
    # offered but cannot do this one thing here answers FAILED_PRECONDITION.
    UnsupportedError: grpc.StatusCode.FAILED_PRECONDITION,
    NotOfferedError: grpc.StatusCode.UNIMPLEMENTED,
    DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    CallerGoneError: grpc.StatusCode.CANCELLED,
    InternalError: grpc.StatusCode.INTERNAL,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """What a caller is told.  `incident` is "" for expected failures."""

    code: grpc.StatusCode
    message: str
    incident: str = ""


def code_of(kind: type[DriverError]) -> grpc.StatusCode:
    """Return the status code of a class of failures, by its nearest base."""
    for base in kind.__mro__:
        if base in _CODES:
            return _CODES[base]
    return grpc.StatusCode.INTERNAL


def describe(error: BaseException) -> Failure:
    """Return what the caller is told about a failure.

    The text of an unexpected exception is not passed on: nobody wrote it for
    a reader, and it may quote what it choked on.
    """
    if isinstance(error, DriverError):
        code = code_of(type(error))
        text = _one_line(str(error)) or type(error).__name__
        if code is not grpc.StatusCode.INTERNAL:
            return Failure(code, text)
    else:
        text = "unexpected failure inside the driver"
    incident = uuid.uuid4().hex[:12]
    message = f"{text}; the driver's log has incident {incident}"
    return Failure(grpc.StatusCode.INTERNAL, message, incident)


def _one_line(text: str) -> str:
    """Make a text fit into a status: one line, valid UTF-8, not too long."""
    text = " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
    if len(text) > LONGEST_MESSAGE:
        return text[: LONGEST_MESSAGE - 1] + "…"
    return text
