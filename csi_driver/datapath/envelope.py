# SPDX-License-Identifier: Apache-2.0
"""Messages of the datapath as text, with their version and kind; and back.

Versions from MIN_VERSION to VERSION are understood.  Of the version after, which
only a node service or a datapath can have that was replaced before the other, those
kinds are understood that mean the same with any field more: to ask how volumes are,
to close and to grow them, and every answer.  To open a volume is not among them: it
could be opened in another way than it was asked for.
"""

from __future__ import annotations

import json
from typing import Any
from typing import Final

from csi_driver.datapath import codec
from csi_driver.datapath.messages import MIN_VERSION
from csi_driver.datapath.messages import VERSION
from csi_driver.datapath.messages import Close
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import Failed
from csi_driver.datapath.messages import Flatten
from csi_driver.datapath.messages import Grow
from csi_driver.datapath.messages import Message
from csi_driver.datapath.messages import Opened
from csi_driver.datapath.messages import Ping
from csi_driver.datapath.messages import Sized
from csi_driver.datapath.messages import Status
from csi_driver.datapath.messages import Statuses
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import SkewError
from csi_driver.domain.secrets import SecretBytes

_KINDS: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in Message.__value__.__args__
}
_ENVELOPE_FIELDS: Final = 4


_WITH_MORE_FIELDS: Final = frozenset(
    kind.__name__
    for kind in (
        *(Ping, Status, Close, Grow, Flatten),
        *(Done, Failed, Opened, Sized, Statuses),
    )
)

type Raw = bytes | bytearray | memoryview


class VersionError(InvalidRequestError):
    """A message is of a version that is not understood here."""

    def __init__(self, version: int) -> None:
        """Keep the version."""
        super().__init__(
            f"a message of the datapath has version {version}, this process"
            f" understands {MIN_VERSION} to {VERSION}"
        )
        self.version = version


def skew(*, node: object, datapath: object) -> SkewError:
    """Say which versions do not understand each other, and what to do."""
    return SkewError(
        f"the node service of this node speaks version {node} of the datapath's"
        f" messages and its datapath version {datapath}, and they do not understand"
        " each other here. Nothing was changed, and mounted volumes go on. Drain the"
        " node, then delete its datapath pod: the new one has the node service's"
        " version"
    )


def encode(message: Message, version: int = VERSION) -> tuple[bytes, list[SecretBytes]]:
    """Return a message's JSON text and, beside it, its secrets.

    What an earlier `version` does not know is left out.
    """
    secrets: list[SecretBytes] = []
    fields = codec.to_json(message, secrets, version)
    envelope = {
        "version": version,
        "kind": type(message).__name__,
        "secrets": [len(secret) for secret in secrets],
        "fields": fields,
    }
    return json.dumps(envelope, separators=(",", ":")).encode(), secrets


def decode(text: bytes, raw: Raw) -> tuple[Message, int]:
    """Read a message and its version; `raw` is the secret part.

    InvalidRequestError if malformed, VersionError if it is of a version that is not
    understood.  The caller wipes `raw`; the message's secrets are copies.
    """
    try:
        envelope = json.loads(text)
        version, kind = envelope["version"], envelope["kind"]
        lengths, fields = envelope["secrets"], envelope["fields"]
    except (ValueError, TypeError, KeyError, RecursionError):
        message = "a message of the datapath is not of its form"
        raise InvalidRequestError(message) from None
    if type(version) is not int or not isinstance(kind, str):
        message = "a message of the datapath has no version or no kind"
        raise InvalidRequestError(message)
    ahead = version == VERSION + 1 and kind in _WITH_MORE_FIELDS
    if not ahead and not MIN_VERSION <= version <= VERSION:
        raise VersionError(version)
    wanted = _KINDS.get(kind)
    if wanted is None or (len(envelope) != _ENVELOPE_FIELDS and not ahead):
        message = "a message of the datapath is of no known kind"
        raise InvalidRequestError(message)
    secrets = codec.split(lengths, raw)
    found: Message = codec.from_json(wanted, fields, secrets, ahead=ahead)
    named: list[SecretBytes] = []
    codec.to_json(found, named)
    if len(named) != len(secrets):
        message = "a message of the datapath brings secrets that it does not name"
        raise InvalidRequestError(message)
    return found, version
