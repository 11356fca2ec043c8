# SPDX-License-Identifier: Apache-2.0
"""The numbers of the NBD protocol, as the project's proto.md lists them.

Only what a server without TLS, structured replies and extended headers speaks
or has to recognise.  All integers on the wire are big-endian.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

GREETING_MAGIC: Final = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC: Final = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9
REQUEST_MAGIC: Final = 0x25609513
SIMPLE_REPLY_MAGIC: Final = 0x67446698

GREETING: Final = struct.Struct(">QQH")
CLIENT_FLAGS: Final = struct.Struct(">I")
OPTION: Final = struct.Struct(">QII")
OPTION_REPLY: Final = struct.Struct(">QIII")
REQUEST: Final = struct.Struct(">IHHQQI")
SIMPLE_REPLY: Final = struct.Struct(">IIQ")
EXPORT_NAME_REPLY: Final = struct.Struct(">QH")
INFO_EXPORT: Final = struct.Struct(">HQH")
INFO_BLOCK_SIZE: Final = struct.Struct(">HIII")
EXPORT_NAME_PADDING: Final = 124

DEFAULT_BLOCK: Final = 4096
MAXIMUM_PAYLOAD: Final = 32 * 1024 * 1024
MAXIMUM_BLOCK: Final = 65536
MAXIMUM_NAME: Final = 4096


class HandshakeFlag(enum.IntFlag):
    """Flags of the greeting; the client answers with the same two bits."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class Option(enum.IntEnum):
    """What a client may ask for during the handshake."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class OptionReply(enum.IntEnum):
    """Types of an option reply; errors have the highest bit set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    ERR_UNSUP = (1 << 31) | 1
    ERR_POLICY = (1 << 31) | 2
    ERR_INVALID = (1 << 31) | 3
    ERR_UNKNOWN = (1 << 31) | 6
    ERR_SHUTDOWN = (1 << 31) | 7
    ERR_TOO_BIG = (1 << 31) | 9


class Info(enum.IntEnum):
    """Types of information in an INFO reply."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class ExportFlag(enum.IntFlag):
    """Transmission flags: what the export can do."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_WRITE_ZEROES = 1 << 6
    CAN_MULTI_CONN = 1 << 8


# Plain integers, not an enum: they are compared for every request.
CMD_READ: Final = 0
CMD_WRITE: Final = 1
CMD_DISC: Final = 2
CMD_FLUSH: Final = 3
CMD_WRITE_ZEROES: Final = 6
CMD_FLAG_FUA: Final = 1 << 0
CMD_FLAG_NO_HOLE: Final = 1 << 1

# Error numbers of the protocol.  They equal Linux's by design of the protocol,
# yet are spelled out: the wire does not follow a platform's errno.
OK: Final = 0
EPERM: Final = 1
EIO: Final = 5
EINVAL: Final = 22
ENOSPC: Final = 28
ESHUTDOWN: Final = 108
