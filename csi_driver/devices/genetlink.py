# SPDX-License-Identifier: Apache-2.0
"""Generic netlink: messages and attributes as bytes, and one socket for them.

Building and parsing is pure; `GenericNetlink` at the end is the only I/O.  Which
commands and attributes a family has is left to its own module (`netlink`).

Formats: Linux include/uapi/linux/netlink.h and genetlink.h.  Integers are in
the machine's own byte order; headers and attributes start on 4-byte borders,
and so does the payload of a 64-bit attribute (the kernel reads it unaligned).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from typing import Self

from csi_driver.domain.errors import InternalError

NETLINK_GENERIC: Final = 16
SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_CAPPED: Final = 0x100
NLM_F_ACK_TLVS: Final = 0x200

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1

NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF
NLA_MAX_PAYLOAD: Final = 0xFFFF - 4

CONTROLLER: Final = 0x10
CTRL_CMD_GETFAMILY: Final = 3
CTRL_ATTR_FAMILY_ID: Final = 1
CTRL_ATTR_FAMILY_NAME: Final = 2

_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct("=BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR: Final = struct.Struct("=i")
_RECEIVE_BYTES: Final = 1 << 16


class NetlinkError(InternalError):
    """The kernel refused a netlink request.

    `errno` is the positive error number; `detail` the kernel's own sentence
    (extended acknowledgement) or an empty string.
    """

    def __init__(self, request: str, number: int, detail: str) -> None:
        self.errno = number
        self.detail = detail
        name = errno.errorcode.get(number, str(number))
        reason = detail or os.strerror(number)
        super().__init__(f"{request} was refused by the kernel: {reason} ({name})")


class MalformedMessageError(InternalError):
    """Bytes received from netlink do not form a message or an attribute."""


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message without its header's length: what, about which call."""

    kind: int
    flags: int
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The kernel's verdict: errno (0 = done) and its sentence, if it gave one."""

    errno: int
    detail: str


def _padding(length: int) -> bytes:
    return b"\0" * (-length % 4)


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to 4 bytes.

    Raises ValueError for a type beyond 14 bits or a payload beyond 65531 bytes.
    """
    if not 0 <= kind & ~NLA_F_NESTED <= NLA_TYPE_MASK:
        message = f"attribute type {kind} does not fit in 14 bits"
        raise ValueError(message)
    if len(payload) > NLA_MAX_PAYLOAD:
        message = f"attribute payload of {len(payload)} bytes is too long"
        raise ValueError(message)
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + _padding(length)


def attribute_u32(kind: int, value: int) -> bytes:
    """Encode an unsigned 32-bit attribute."""
    return attribute(kind, struct.pack("=I", value))


def attribute_u64(kind: int, value: int) -> bytes:
    """Encode an unsigned 64-bit attribute."""
    return attribute(kind, struct.pack("=Q", value))


def attribute_string(kind: int, value: str) -> bytes:
    """Encode a NUL-terminated string; a NUL inside raises ValueError."""
    if "\0" in value:
        message = "a netlink string cannot hold a NUL character"
        raise ValueError(message)
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *children: bytes) -> bytes:
    """Encode an attribute that holds attributes, with the nesting flag set."""
    return attribute(kind | NLA_F_NESTED, b"".join(children))


def parse_attributes(data: bytes) -> tuple[tuple[int, bytes], ...]:
    """Split bytes into (type without flags, payload) pairs, in their order.

    A list because a nested array repeats one type.  Raises
    MalformedMessageError when a length does not fit.
    """
    found: list[tuple[int, bytes]] = []
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            message = f"a netlink attribute claims {length} bytes at offset {offset}"
            raise MalformedMessageError(message)
        payload = data[offset + _ATTRIBUTE.size : offset + length]
        found.append((kind & NLA_TYPE_MASK, payload))
        offset += length + (-length % 4)
    if offset < len(data):
        message = f"{len(data) - offset} stray bytes follow the netlink attributes"
        raise MalformedMessageError(message)
    return tuple(found)


def build_message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Encode one message; the sender's port id is 0, the kernel fills it in."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def build_generic(command: int, version: int, *attributes: bytes) -> bytes:
    """Encode the generic netlink header and its attributes."""
    return _GENERIC.pack(command, version, 0) + b"".join(attributes)


def generic_attributes(payload: bytes) -> dict[int, bytes]:
    """Return the attributes of a generic netlink payload, the last one winning."""
    if len(payload) < _GENERIC.size:
        message = f"a generic netlink reply of {len(payload)} bytes has no header"
        raise MalformedMessageError(message)
    return dict(parse_attributes(payload[_GENERIC.size :]))


def split_messages(data: bytes) -> Iterator[Message]:
    """Split one datagram into its messages.

    Raises MalformedMessageError when a header or a length does not fit.
    """
    offset = 0
    while offset < len(data):
        if offset + _HEADER.size > len(data):
            message = f"{len(data) - offset} stray bytes follow the netlink messages"
            raise MalformedMessageError(message)
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            message = f"a netlink message claims {length} bytes at offset {offset}"
            raise MalformedMessageError(message)
        payload = data[offset + _HEADER.size : offset + length]
        yield Message(kind, flags, sequence, payload)
        offset += length + (-length % 4)


def parse_acknowledgement(message: Message) -> Acknowledgement:
    """Read an NLMSG_ERROR message, which also carries success.

    Layout: int error, the request's header, the request's payload unless the
    message is capped, then attributes if the flag says so.
    """
    payload = message.payload
    start = _ERROR.size + _HEADER.size
    if len(payload) < start:
        text = f"a netlink acknowledgement has only {len(payload)} bytes"
        raise MalformedMessageError(text)
    (number,) = _ERROR.unpack_from(payload)
    detail = ""
    if message.flags & NLM_F_ACK_TLVS:
        if not message.flags & NLM_F_CAPPED:
            (request_length, *_) = _HEADER.unpack_from(payload, _ERROR.size)
            start = _ERROR.size + request_length + (-request_length % 4)
        attributes = dict(parse_attributes(payload[start:]))
        raw = attributes.get(NLMSGERR_ATTR_MSG, b"")
        detail = raw.rstrip(b"\0").decode(errors="replace")
    return Acknowledgement(-number, detail)


class GenericNetlink:
    """One generic netlink socket; a context manager, not shared by threads.

    The kernel handles a request inside `send`, so a call that the kernel never
    finishes cannot be timed out here: callers put it in a thread of its own.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        """Open the socket; `timeout` seconds bound the wait for a reply."""
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_GENERIC
        )
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
            self._socket.settimeout(timeout)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def request(
        self, name: str, family: int, command: int, version: int, *attributes: bytes
    ) -> tuple[dict[int, bytes], ...]:
        """Send one command and return the attributes of each reply.

        `name` is for messages only.  Raises NetlinkError if the kernel refuses,
        TimeoutError without an answer, MalformedMessageError for a broken one.
        """
        self._sequence += 1
        body = build_generic(command, version, *attributes)
        flags = NLM_F_REQUEST | NLM_F_ACK
        self._socket.send(build_message(family, flags, self._sequence, body))
        return self._collect(name)

    def _collect(self, name: str) -> tuple[dict[int, bytes], ...]:
        replies: list[dict[int, bytes]] = []
        while True:
            for message in split_messages(self._socket.recv(_RECEIVE_BYTES)):
                if message.sequence != self._sequence:
                    continue  # an answer to a request that timed out earlier
                if message.kind == NLMSG_ERROR:
                    verdict = parse_acknowledgement(message)
                    if verdict.errno:
                        raise NetlinkError(name, verdict.errno, verdict.detail)
                    return tuple(replies)
                if message.kind != NLMSG_DONE:
                    replies.append(generic_attributes(message.payload))

    def resolve(self, family: str) -> int:
        """Return the number of a family; NetlinkError ENOENT if it is unknown.

        The kernel may load the module that provides the family.
        """
        replies = self.request(
            f"resolving the netlink family {family!r}",
            CONTROLLER,
            CTRL_CMD_GETFAMILY,
            1,
            attribute_string(CTRL_ATTR_FAMILY_NAME, family),
        )
        for reply in replies:
            raw = reply.get(CTRL_ATTR_FAMILY_ID)
            if raw is not None and len(raw) == struct.calcsize("=H"):
                return int.from_bytes(raw, sys.byteorder)
        message = f"the kernel named no number for the netlink family {family!r}"
        raise MalformedMessageError(message)
