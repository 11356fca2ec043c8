# SPDX-License-Identifier: Apache-2.0
"""Messages on a unix stream socket: framed, bounded, wiped after use.

A frame is two 32-bit lengths in network order, the JSON text, and the bytes of
the secrets.  What the messages mean is left to `messages`.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from csi_driver.datapath import envelope
from csi_driver.datapath.messages import VERSION
from csi_driver.datapath.messages import Message
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import UnavailableError

LONGEST_TEXT: Final = 1 << 20
"""Bytes of JSON in one frame: the status of some thousand volumes."""

LONGEST_SECRETS: Final = 64 << 10
"""Bytes of secrets in one frame: sixteen layers of passphrases and a key."""

_HEADER: Final = struct.Struct("!II")
_MARK: Final = b"\0"


class ClosedError(UnavailableError):
    """The other side has closed the connection, between two messages or in one."""


def send(sock: socket.socket, message: Message, version: int = VERSION) -> None:
    """Send one message; UnavailableError if the other side is gone.

    `version` is what the other side speaks, if that is another one.

    The buffer that held its secrets is wiped; the secrets themselves stay the
    caller's.
    """
    text, secrets = envelope.encode(message, version)
    length = sum(len(secret) for secret in secrets)
    if len(text) > LONGEST_TEXT or length > LONGEST_SECRETS:
        too_long = f"a {type(message).__name__} of {len(text) + length} bytes"
        raise InvalidRequestError(f"{too_long} does not fit into one frame")
    frame = bytearray(_HEADER.size + len(text) + length)
    _HEADER.pack_into(frame, 0, len(text), length)
    position = _HEADER.size
    frame[position : position + len(text)] = text
    position += len(text)
    for secret in secrets:
        frame[position : position + len(secret)] = secret.reveal()
        position += len(secret)
    try:
        sock.sendall(frame)
    except TimeoutError as error:
        raise UnavailableError("the other side takes no message") from error
    except OSError as error:
        raise ClosedError(f"the other side is gone: {error.strerror}") from error
    finally:
        frame[:] = bytes(len(frame))


def receive(sock: socket.socket) -> Message:
    """Return the next message; raises what `receive_versioned` does."""
    message, _ = receive_versioned(sock)
    return message


def receive_versioned(sock: socket.socket) -> tuple[Message, int]:
    """Return the next message, and the version that it came in.

    ClosedError at the end of the stream, UnavailableError after the socket's
    timeout, InvalidRequestError for anything that is not a message.
    """
    header = _exactly(sock, _HEADER.size)
    text_length, secret_length = _HEADER.unpack(header)
    if text_length > LONGEST_TEXT or secret_length > LONGEST_SECRETS:
        raise InvalidRequestError("a frame of the datapath is too long")
    text = _exactly(sock, text_length)
    secrets = _exactly(sock, secret_length)
    try:
        return envelope.decode(bytes(text), secrets)
    finally:
        secrets[:] = bytes(len(secrets))


def send_socket(sock: socket.socket, passed: socket.socket) -> None:
    """Pass a socket; the message that announces it has to go first."""
    try:
        socket.send_fds(sock, [_MARK], [passed.fileno()])
    except OSError as error:
        raise ClosedError(f"the other side is gone: {error.strerror}") from error


def receive_socket(sock: socket.socket) -> socket.socket:
    """Return a passed socket, closed on exec."""
    mark, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
    if not mark:
        raise ClosedError("the other side is gone")
    if mark != _MARK or len(descriptors) != 1:
        raise InvalidRequestError("a socket was announced and did not come")
    os.set_inheritable(descriptors[0], False)  # recv_fds drops MSG_CMSG_CLOEXEC
    return socket.socket(fileno=descriptors[0])


def _exactly(sock: socket.socket, count: int) -> bytearray:
    """Receive `count` bytes; `recv_into` leaves no other copy."""
    buffer = bytearray(count)
    with memoryview(buffer) as view:
        received = 0
        while received < count:
            try:
                got = sock.recv_into(view[received:])
            except TimeoutError as error:
                raise UnavailableError("the other side does not answer") from error
            except OSError as error:
                text = f"the other side is gone: {error.strerror}"
                raise ClosedError(text) from error
            if not got:
                raise ClosedError("the other side is gone")
            received += got
    return buffer
