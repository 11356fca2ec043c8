# SPDX-License-Identifier: Apache-2.0
"""Every failure has its status code, subclasses included."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import grpc
import pytest

import csi_driver
import csi_driver.domain
from csi_driver.domain import errors
from csi_driver.rpc import status

CODES = {
    "InvalidRequestError": "INVALID_ARGUMENT",
    "NotFoundError": "NOT_FOUND",
    "AlreadyExistsError": "ALREADY_EXISTS",
    "PendingError": "ABORTED",
    "ConflictError": "ABORTED",
    "CancelledError": "ABORTED",
    "PreconditionError": "FAILED_PRECONDITION",
    "InUseError": "FAILED_PRECONDITION",
    "AlreadyLoadedError": "FAILED_PRECONDITION",
    "HeaderExistsError": "FAILED_PRECONDITION",
    "HeaderError": "FAILED_PRECONDITION",
    "RecordError": "FAILED_PRECONDITION",
    "ExportLostError": "FAILED_PRECONDITION",
    "SkewError": "FAILED_PRECONDITION",
    "SizeError": "OUT_OF_RANGE",
    "ExhaustedError": "RESOURCE_EXHAUSTED",
    "SecretError": "UNAUTHENTICATED",
    "CephKeyError": "UNAUTHENTICATED",
    "ForbiddenError": "PERMISSION_DENIED",
    "CredentialsError": "PERMISSION_DENIED",
    "UnavailableError": "UNAVAILABLE",
    "FencedError": "UNAVAILABLE",
    "UnsupportedError": "FAILED_PRECONDITION",
    "NotOfferedError": "UNIMPLEMENTED",
    "DeadlineError": "DEADLINE_EXCEEDED",
    "CallerGoneError": "CANCELLED",
    "InternalError": "INTERNAL",
}


def subclasses(kind: type[errors.DriverError]) -> Iterator[type[errors.DriverError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def test_the_table_here_names_every_class_of_domain_and_rpc() -> None:
    for module in pkgutil.iter_modules(csi_driver.domain.__path__):
        importlib.import_module(f"csi_driver.domain.{module.name}")
    fixed = {
        each.__name__
        for each in subclasses(errors.DriverError)
        if each.__module__ in {errors.__name__, status.__name__}
    }
    assert fixed == set(CODES)


def test_every_class_has_the_code_that_csi_wants() -> None:
    for kind in subclasses(errors.DriverError):
        if kind.__name__ in CODES:
            assert status.code_of(kind).name == CODES[kind.__name__], kind


def test_a_subclass_made_elsewhere_takes_its_base_s_code() -> None:
    class Worse(errors.HeaderError):
        pass

    assert status.code_of(Worse) is grpc.StatusCode.FAILED_PRECONDITION


def test_a_subclass_of_two_takes_the_nearer() -> None:
    class Both(errors.FencedError, errors.PreconditionError):
        pass

    assert status.code_of(Both) is grpc.StatusCode.UNAVAILABLE


def test_the_text_of_an_expected_failure_is_what_the_caller_reads() -> None:
    failure = status.describe(errors.SizeError("9 bytes\nare too few"))
    assert failure == status.Failure(
        grpc.StatusCode.OUT_OF_RANGE, "9 bytes are too few"
    )


@pytest.mark.parametrize(
    "error", [ValueError("hunter2"), MemoryError(), errors.InternalError("odd")]
)
def test_the_unexpected_is_internal_with_an_incident(error: Exception) -> None:
    failure = status.describe(error)
    assert failure.code is grpc.StatusCode.INTERNAL
    assert failure.incident
    assert failure.incident in failure.message
    assert "hunter2" not in failure.message


def test_a_message_fits_into_a_header_and_is_utf8() -> None:
    failure = status.describe(errors.NotFoundError("\udcff" + "x" * 100_000))
    assert len(failure.message) <= status.LONGEST_MESSAGE
    failure.message.encode()
