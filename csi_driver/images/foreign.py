# SPDX-License-Identifier: Apache-2.0
"""Long work that other clients asked the owner of an image's lock to do.

`rbd flatten` of an image that somebody has locked is carried out by the lock's
owner, and told to all watchers of the image's header: the request, how far it
is, and its end.  An owner that ends midway makes the other client go on by
itself, raw, which ruins a formatted clone.  So an owner listens here and stays.

The messages are librbd's `NotifyMessage` (`librbd/WatchNotifyTypes.h`), read
off real ones of Ceph 18.2.7; what is unknown is passed over.  No I/O.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import struct
import threading
from typing import Final

KNOWN_VERSION: Final = 7
"""Of the messages; a later one that older readers understand is read, too."""

SILENCE_SECONDS: Final = 120.0
"""After which a request that nobody speaks of has ended unheard.

A client that hears nothing for 30 s (rbd_request_timed_out_seconds) asks again.
"""

FLAT_SILENCE_SECONDS: Final = 5.0
"""As SILENCE_SECONDS, once the parent is gone: little is left to do then."""

_FRAME: Final = struct.Struct("<BBII")
"""Version, the least version that can read it, length of the rest, operation."""
_OPERATION_LENGTH: Final = 4
_REQUEST: Final = struct.Struct("<QQQ")
_PROGRESS: Final = struct.Struct("<QQ")
_RESULT: Final = struct.Struct("<i")
_RECALLED: Final = 64
"""How many requests that ended are remembered as such."""


class Kind(enum.IntEnum):
    """The messages that say something of long work."""

    PROGRESS = 4
    COMPLETE = 5
    FLATTEN = 6


@dataclasses.dataclass(frozen=True, slots=True)
class RequestId:
    """Which request: the asking client, its watch and its own number."""

    client: int
    watch: int
    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """What was said of a request.

    `done` of `total` are objects, `result` is 0 or a negative errno; each stands
    in its own kind of message alone.
    """

    kind: Kind
    request: RequestId
    done: int = 0
    total: int = 0
    result: int = 0


def decode(payload: bytes) -> Message | None:
    """Read one message; None if it says nothing of long work, or is unknown."""
    if len(payload) < _FRAME.size:
        return None
    _, oldest, length, operation = _FRAME.unpack_from(payload)
    rest = payload[_FRAME.size :]
    if oldest > KNOWN_VERSION or length != len(rest) + _OPERATION_LENGTH:
        return None
    try:
        kind = Kind(operation)
        request = RequestId(*_REQUEST.unpack_from(rest))
        match kind:
            case Kind.FLATTEN:
                return Message(kind, request)
            case Kind.PROGRESS:
                done, total = _PROGRESS.unpack_from(rest, _REQUEST.size)
                return Message(kind, request, done=done, total=total)
            case Kind.COMPLETE:
                (result,) = _RESULT.unpack_from(rest, _REQUEST.size)
                return Message(kind, request, result=result)
    except (ValueError, struct.error):
        return None


class ForeignWork:
    """The requests of other clients that are under way.

    What this client does for itself is not told to watchers.  A request whose
    beginning was missed is known by its progress.  Times are of one monotonic
    clock, in seconds; methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[RequestId, float] = {}
        self._ended: collections.deque[RequestId] = collections.deque(maxlen=_RECALLED)

    def hear(self, payload: bytes, now: float) -> Message | None:
        """Take a message; return it if it was one of these."""
        message = decode(payload)
        if message is None:
            return None
        with self._lock:
            if message.kind is Kind.COMPLETE:
                self._last.pop(message.request, None)
                self._ended.append(message.request)
            elif message.request not in self._ended:  # progress can come late
                self._last[message.request] = now
        return message

    def under_way(self, now: float, silence: float = SILENCE_SECONDS) -> bool:
        """Tell whether a request was spoken of that did not end since."""
        with self._lock:
            return any(now - last < silence for last in self._last.values())
