# SPDX-License-Identifier: Apache-2.0
"""Messages of the datapath as text, with their version and kind; and back."""

from __future__ import annotations

import json
from typing import Any
from typing import Final

from csi_driver.datapath import codec
from csi_driver.datapath.messages import VERSION
from csi_driver.datapath.messages import Message
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.secrets import SecretBytes

_KINDS: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in Message.__value__.__args__
}
_ENVELOPE_FIELDS: Final = 4


def encode(message: Message) -> tuple[bytes, list[SecretBytes]]:
    """Return a message's JSON text and, beside it, its secrets."""
    secrets: list[SecretBytes] = []
    fields = codec.to_json(message, secrets)
    envelope = {
        "version": VERSION,
        "kind": type(message).__name__,
        "secrets": [len(secret) for secret in secrets],
        "fields": fields,
    }
    return json.dumps(envelope, separators=(",", ":")).encode(), secrets


def decode(text: bytes, raw: bytes | bytearray | memoryview) -> Message:
    """Read a message; `raw` is the secret part.  InvalidRequestError if malformed.

    The caller wipes `raw`; the message's secrets are copies.
    """
    try:
        envelope = json.loads(text)
        version, kind = envelope["version"], envelope["kind"]
        lengths, fields = envelope["secrets"], envelope["fields"]
    except (ValueError, TypeError, KeyError, RecursionError):
        message = "a message of the datapath is not of its form"
        raise InvalidRequestError(message) from None
    if type(version) is not int or version != VERSION:
        message = (
            f"a message of the datapath has version {version!r}, this process"
            f" speaks {VERSION}: restart the older of the two"
        )
        raise InvalidRequestError(message)
    wanted = _KINDS.get(kind) if isinstance(kind, str) else None
    if wanted is None or len(envelope) != _ENVELOPE_FIELDS:
        message = "a message of the datapath is of no known kind"
        raise InvalidRequestError(message)
    secrets = codec.split(lengths, raw)
    found: Message = codec.from_json(wanted, fields, secrets)
    named: list[SecretBytes] = []
    codec.to_json(found, named)
    if len(named) != len(secrets):
        message = "a message of the datapath brings secrets that it does not name"
        raise InvalidRequestError(message)
    return found
