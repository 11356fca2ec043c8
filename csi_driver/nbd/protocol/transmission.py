# SPDX-License-Identifier: Apache-2.0
"""Transmission phase, server side: requests in, simple replies out."""

from __future__ import annotations

from typing import Final

from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.protocol.errors import LocalProtocolError
from csi_driver.nbd.protocol.errors import PeerProtocolError
from csi_driver.nbd.protocol.events import Disconnect
from csi_driver.nbd.protocol.events import Flush
from csi_driver.nbd.protocol.events import Read
from csi_driver.nbd.protocol.events import Rejected
from csi_driver.nbd.protocol.events import TransmissionEvent
from csi_driver.nbd.protocol.events import Write
from csi_driver.nbd.protocol.events import WriteZeroes
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.protocol.export import verdict
from csi_driver.nbd.protocol.inbox import Inbox

# A refused write is answered after its payload was skipped.  A payload above
# this is taken for a stream that has lost its way: nobody skips gigabytes.
MAXIMUM_SKIP: Final = 2 * c.MAXIMUM_PAYLOAD

_unpack_request = c.REQUEST.unpack_from
_REQUEST_SIZE: Final = c.REQUEST.size


class Transmission:
    """Requests from `inbox` as events, judged by `export`.

    `export` may be replaced between events, when the image has grown.
    """

    __slots__ = ("_over", "_rejected", "_skip_left", "export", "inbox", "payload_left")

    def __init__(self, export: Export, inbox: Inbox) -> None:
        self.export = export
        self.inbox = inbox
        self.payload_left = 0
        self._skip_left = 0
        self._rejected: Rejected | None = None
        self._over = False

    def next_event(  # noqa: PLR0911  # one return for each event
        self,
    ) -> TransmissionEvent | None:
        """Return the next event, or None when more bytes are needed.

        After a Write the payload has to be taken first.  Raises
        PeerProtocolError when the stream is not NBD any more, and
        LocalProtocolError when called after that, after Disconnect, or with
        payload left.
        """
        if self.payload_left or self._over:
            self._misused()
        if self._rejected is not None:
            return self._skip(self._rejected)
        inbox = self.inbox
        head = inbox.head
        if inbox.tail - head < _REQUEST_SIZE:
            return None
        magic, flags, command, cookie, offset, length = _unpack_request(
            inbox.data, head
        )
        if magic != c.REQUEST_MAGIC:
            self._over = True
            message = f"request magic {magic:#x} is wrong"
            raise PeerProtocolError(message)
        inbox.head = head + _REQUEST_SIZE
        if command == c.CMD_DISC:
            self._over = True
            return Disconnect()
        error = verdict(self.export, command, flags, offset, length)
        if error:
            return self._reject(command, length, Rejected(cookie, error))
        if command == c.CMD_READ:
            return Read(cookie, offset, length)
        if command == c.CMD_WRITE:
            self.payload_left = length
            return Write(cookie, offset, length, bool(flags & c.CMD_FLAG_FUA))
        if command == c.CMD_WRITE_ZEROES:
            return WriteZeroes(cookie, offset, length, bool(flags & c.CMD_FLAG_FUA))
        return Flush(cookie)

    def take_payload(self, target: memoryview) -> int:
        """Move buffered payload into `target`; return how many bytes moved."""
        count = self.inbox.take_into(target[: self.payload_left])
        self.payload_left -= count
        return count

    def payload_received(self, count: int) -> None:
        """Report payload that was received past the inbox, which was empty."""
        if not 0 <= count <= self.payload_left or (count and len(self.inbox)):
            message = f"{count} bytes cannot be payload here"
            raise LocalProtocolError(message)
        self.payload_left -= count

    @property
    def between_requests(self) -> bool:
        """Whether no request is half received."""
        return not (self.payload_left or self._rejected or len(self.inbox))

    def _reject(
        self, command: int, length: int, rejected: Rejected
    ) -> TransmissionEvent | None:
        if command != c.CMD_WRITE:  # no other command has a payload
            return rejected
        if length > MAXIMUM_SKIP:
            self._over = True
            message = f"a write claims {length} bytes"
            raise PeerProtocolError(message)
        self._rejected, self._skip_left = rejected, length
        return self._skip(rejected)

    def _skip(self, rejected: Rejected) -> TransmissionEvent | None:
        self._skip_left -= self.inbox.discard(self._skip_left)
        if self._skip_left:
            return None
        self._rejected = None
        return rejected

    def _misused(self) -> None:
        reason = "is over" if self._over else "waits for payload"
        message = f"the transmission {reason}"
        raise LocalProtocolError(message)
