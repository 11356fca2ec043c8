# SPDX-License-Identifier: Apache-2.0
"""Take a request's secrets out of a text that nobody wrote with care.

Tracebacks of unexpected failures may quote what a library choked on.  What to
look for is found by the option `csi_secret` in the request's descriptor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.message import Message

from csi_driver.rpc.redaction import REDACTED
from csi_driver.rpc.stubs import csi_pb2

_NO_SECRET: Final = frozenset({"userID"})
"""Secret keys whose value is a public name, needed to read an error."""


def scrub(text: str, request: Message) -> str:
    """Replace every secret value of the request in a text."""
    for value in sorted(set(_values(request)), key=len, reverse=True):
        text = text.replace(value, REDACTED)
    return text


def _values(request: Message) -> Iterator[str]:
    for field, value in request.ListFields():
        if not field.GetOptions().Extensions[csi_pb2.csi_secret]:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key, secret in value.items():
                if key not in _NO_SECRET:
                    yield from _spellings(str(secret))
        else:
            yield from _spellings(str(value))


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is, as repr shows it, and without outer blanks."""
    for each in (secret, repr(secret)[1:-1], secret.strip()):
        if each:
            yield each
