# SPDX-License-Identifier: Apache-2.0
"""Fixed newstyle handshake, server side, for one export.

No TLS and no structured replies: the server listens on a unix socket that only
root may open, and simple replies are what the kernel understands.  An option
that is not offered is refused with ERR_UNSUP after its data was skipped, which
is what keeps a newer client in step.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.protocol.errors import LocalProtocolError
from csi_driver.nbd.protocol.errors import PeerProtocolError
from csi_driver.nbd.protocol.events import HandshakeAborted
from csi_driver.nbd.protocol.events import HandshakeEvent
from csi_driver.nbd.protocol.events import Send
from csi_driver.nbd.protocol.events import TransmissionBegins
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.protocol.inbox import Inbox

# Longest option data that is looked at: a name and a list of wanted infos.
MAXIMUM_OPTION: Final = 4 + c.MAXIMUM_NAME + 2 + 2 * 256
# Longest option data that is skipped; beyond it the client is not worth it.
MAXIMUM_SKIP: Final = 1024 * 1024
# A client needs a handful of options; this ends one that asks for ever.
MAXIMUM_OPTIONS: Final = 256


class _State(enum.Enum):
    START = enum.auto()
    CLIENT_FLAGS = enum.auto()
    OPTION = enum.auto()
    SKIP = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


class Handshake:
    """Bytes from `inbox` to events, until TransmissionBegins or an abort."""

    __slots__ = (
        "_option",
        "_options_seen",
        "_queue",
        "_skip_left",
        "_skip_reply",
        "_state",
        "export",
        "fixed",
        "inbox",
        "no_zeroes",
    )

    def __init__(self, export: Export, inbox: Inbox) -> None:
        self.export = export
        self.inbox = inbox
        self.fixed = False
        self.no_zeroes = False
        self._state = _State.START
        self._queue: list[HandshakeEvent] = []
        self._options_seen = 0
        self._option = 0
        self._skip_left = 0
        self._skip_reply = c.OptionReply.ERR_UNSUP

    def next_event(self) -> HandshakeEvent | None:
        """Return the next event, or None when more bytes are needed.

        Raises PeerProtocolError when the peer is no fixed newstyle client, and
        LocalProtocolError when called after that or after the last event.
        """
        try:
            while not self._queue:
                if not self._step():
                    return None
        except PeerProtocolError:
            self._state = _State.FAILED
            raise
        return self._queue.pop(0)

    def _step(self) -> bool:
        """Do one step; False when it needs more bytes."""
        state = self._state
        if state is _State.OPTION:
            return self._read_option()
        if state is _State.SKIP:
            return self._skip()
        if state is _State.CLIENT_FLAGS:
            return self._read_client_flags()
        if state is _State.START:
            flags = c.HandshakeFlag.FIXED_NEWSTYLE | c.HandshakeFlag.NO_ZEROES
            self._send(c.GREETING.pack(c.GREETING_MAGIC, c.OPTION_MAGIC, flags))
            self._state = _State.CLIENT_FLAGS
            return True
        message = f"the handshake is over ({state.name.lower()})"
        raise LocalProtocolError(message)

    def _read_client_flags(self) -> bool:
        if len(self.inbox) < c.CLIENT_FLAGS.size:
            return False
        (flags,) = c.CLIENT_FLAGS.unpack(self.inbox.take(c.CLIENT_FLAGS.size))
        known = c.HandshakeFlag.FIXED_NEWSTYLE | c.HandshakeFlag.NO_ZEROES
        if flags & ~int(known):
            message = f"client flags {flags:#x} hold bits the server did not offer"
            raise PeerProtocolError(message)
        self.fixed = bool(flags & c.HandshakeFlag.FIXED_NEWSTYLE)
        self.no_zeroes = bool(flags & c.HandshakeFlag.NO_ZEROES)
        self._state = _State.OPTION
        return True

    def _read_option(self) -> bool:
        inbox = self.inbox
        if len(inbox) < c.OPTION.size:
            return False
        magic, option, length = c.OPTION.unpack_from(inbox.data, inbox.head)
        if magic != c.OPTION_MAGIC:
            message = f"option magic {magic:#x} is wrong"
            raise PeerProtocolError(message)
        if not self.fixed and option != c.Option.EXPORT_NAME:
            message = f"option {option} from a client without fixed newstyle"
            raise PeerProtocolError(message)
        if length > MAXIMUM_SKIP:
            message = f"option {option} claims {length} bytes of data"
            raise PeerProtocolError(message)
        if length > MAXIMUM_OPTION:
            self._count_option(option)
            self._begin_skip(option, length, c.OptionReply.ERR_TOO_BIG)
            return True
        if option not in _HANDLERS:
            self._count_option(option)
            self._begin_skip(option, length, c.OptionReply.ERR_UNSUP)
            return True
        if len(inbox) < c.OPTION.size + length:
            return False
        self._count_option(option)
        inbox.consume(c.OPTION.size)
        _HANDLERS[option](self, option, inbox.take(length))
        return True

    def _count_option(self, option: int) -> None:
        self._options_seen += 1
        if self._options_seen > MAXIMUM_OPTIONS:
            message = f"option {option} is one too many ({MAXIMUM_OPTIONS} allowed)"
            raise PeerProtocolError(message)

    def _begin_skip(self, option: int, length: int, reply: c.OptionReply) -> None:
        if option == c.Option.EXPORT_NAME:
            message = "export name is too long"  # this option has no error reply
            raise PeerProtocolError(message)
        self.inbox.consume(c.OPTION.size)
        self._option, self._skip_left, self._skip_reply = option, length, reply
        self._state = _State.SKIP

    def _skip(self) -> bool:
        self._skip_left -= self.inbox.discard(self._skip_left)
        if self._skip_left:
            return False
        self._reply(self._option, self._skip_reply)
        self._state = _State.OPTION
        return True

    def _send(self, data: bytes) -> None:
        self._queue.append(Send(data))

    def _reply(self, option: int, kind: c.OptionReply, data: bytes = b"") -> None:
        header = c.OPTION_REPLY.pack(c.OPTION_REPLY_MAGIC, option, kind, len(data))
        self._send(header + data)

    def _finish(self, event: HandshakeEvent) -> None:
        self._queue.append(event)
        self._state = _State.DONE

    def _on_export_name(self, _option: int, data: bytes) -> None:
        if not self._is_ours(data):
            message = "unknown export name"  # no error reply exists: drop
            raise PeerProtocolError(message)
        export = self.export
        reply = c.EXPORT_NAME_REPLY.pack(export.announced_size, export.flags)
        padding = b"" if self.no_zeroes else bytes(c.EXPORT_NAME_PADDING)
        self._send(reply + padding)
        self._finish(TransmissionBegins())

    def _on_abort(self, option: int, _data: bytes) -> None:
        self._reply(option, c.OptionReply.ACK)
        self._finish(HandshakeAborted())

    def _on_list(self, option: int, data: bytes) -> None:
        if data:
            self._reply(option, c.OptionReply.ERR_INVALID)
            return
        name = self.export.name.encode()
        entry = struct.pack(">I", len(name)) + name
        self._reply(option, c.OptionReply.SERVER, entry)
        self._reply(option, c.OptionReply.ACK)

    def _on_info(self, option: int, data: bytes) -> None:
        try:
            name, wanted = _parse_info(data)
        except ValueError:
            self._reply(option, c.OptionReply.ERR_INVALID)
            return
        if not self._is_ours(name):
            self._reply(option, c.OptionReply.ERR_UNKNOWN)
            return
        export, info = self.export, c.OptionReply.INFO
        size, flags = export.announced_size, export.flags
        self._reply(option, info, c.INFO_EXPORT.pack(c.Info.EXPORT, size, flags))
        # Sent unasked too: a client that ignores it learns by EINVAL.
        blocks = c.INFO_BLOCK_SIZE.pack(
            c.Info.BLOCK_SIZE,
            export.minimum_block,
            max(export.minimum_block, c.DEFAULT_BLOCK),
            export.maximum_payload,
        )
        self._reply(option, info, blocks)
        if c.Info.NAME in wanted:
            ours = struct.pack(">H", c.Info.NAME) + export.name.encode()
            self._reply(option, info, ours)
        self._reply(option, c.OptionReply.ACK)
        if option == c.Option.GO:
            self._finish(TransmissionBegins())

    def _is_ours(self, name: bytes) -> bool:
        """Whether `name` means our export; the empty name is the default one."""
        return name in (b"", self.export.name.encode())


def _parse_info(data: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Split the data of INFO and GO; ValueError when it is malformed."""
    if len(data) < 4 + 2:
        raise ValueError
    (length,) = struct.unpack_from(">I", data)
    if len(data) < 4 + length + 2:
        raise ValueError
    (count,) = struct.unpack_from(">H", data, 4 + length)
    if len(data) != 4 + length + 2 + 2 * count:
        raise ValueError
    return data[4 : 4 + length], struct.unpack_from(f">{count}H", data, 6 + length)


_HANDLERS: Final = {
    int(c.Option.EXPORT_NAME): Handshake._on_export_name,  # noqa: SLF001
    int(c.Option.ABORT): Handshake._on_abort,  # noqa: SLF001
    int(c.Option.LIST): Handshake._on_list,  # noqa: SLF001
    int(c.Option.INFO): Handshake._on_info,  # noqa: SLF001
    int(c.Option.GO): Handshake._on_info,  # noqa: SLF001
}
