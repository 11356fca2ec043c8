# SPDX-License-Identifier: Apache-2.0
"""A raw NBD client for tests, which also says what no decent client would."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from typing import Self

from csi_driver.nbd.backend import Backend
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.server import Server
from csi_driver.nbd.server import export_of

_PATIENCE: Final = 30.0


@dataclass(frozen=True, slots=True)
class OptionAnswer:
    """One reply of the handshake."""

    option: int
    kind: int
    data: bytes


class RawClient:
    """Blocking access to one connection, request by request."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(_PATIENCE)
        self.sock = sock
        self._cookie = 0

    @classmethod
    def connect(cls, path: Path) -> RawClient:
        """Connect to a listening server; nothing is said yet."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_PATIENCE)
        sock.connect(str(path))
        return cls(sock)

    @classmethod
    def ready(cls, path: Path) -> RawClient:
        """Connect and go into the transmission phase."""
        client = cls.connect(path)
        client.greet()
        answers = client.option(c.Option.GO, info_request(""))
        if answers[-1].kind != c.OptionReply.ACK:
            raise AssertionError(answers)
        return client

    def close(self) -> None:
        """Hang up; harmless when repeated."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self, count: int) -> bytes:
        """Return exactly `count` bytes; EOFError when the server hangs up."""
        data = bytearray()
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError(f"{len(data)} of {count} bytes")
            data += piece
        return bytes(data)

    def at_end(self) -> bool:
        """Whether the server hangs up without another byte."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    # ------------------------------------------------------------- handshake

    def greet(self, flags: int = 3) -> int:
        """Take the greeting, answer with `flags`; return the server's flags."""
        first, second, offered = c.GREETING.unpack(self.receive(c.GREETING.size))
        if (first, second) != (c.GREETING_MAGIC, c.OPTION_MAGIC):
            raise AssertionError((first, second))
        self.sock.sendall(c.CLIENT_FLAGS.pack(flags))
        return int(offered)

    def send_option(self, option: int, data: bytes = b"") -> None:
        """Send an option."""
        self.sock.sendall(c.OPTION.pack(c.OPTION_MAGIC, option, len(data)) + data)

    def option(self, option: int, data: bytes = b"") -> list[OptionAnswer]:
        """Send an option; return its answers up to ACK or an error."""
        self.send_option(option, data)
        answers: list[OptionAnswer] = []
        while True:
            magic, echoed, kind, length = c.OPTION_REPLY.unpack(
                self.receive(c.OPTION_REPLY.size)
            )
            if (magic, echoed) != (c.OPTION_REPLY_MAGIC, option):
                raise AssertionError((magic, echoed))
            answers.append(OptionAnswer(echoed, kind, self.receive(length)))
            if kind == c.OptionReply.ACK or kind >> 31:
                return answers

    # ---------------------------------------------------------- transmission

    def send_request(
        self,
        command: int,
        offset: int,
        length: int,
        data: bytes | bytearray = b"",
        *,
        flags: int = 0,
    ) -> int:
        """Send a request; return its cookie."""
        self._cookie += 1
        header = c.REQUEST.pack(
            c.REQUEST_MAGIC, flags, command, self._cookie, offset, length
        )
        self.sock.sendall(header)
        if data:
            self.sock.sendall(data)
        return self._cookie

    def reply(self) -> tuple[int, int]:
        """Return cookie and error of the next reply, without its data."""
        magic, error, cookie = c.SIMPLE_REPLY.unpack(self.receive(c.SIMPLE_REPLY.size))
        if magic != c.SIMPLE_REPLY_MAGIC:
            raise AssertionError(hex(magic))
        return cookie, error

    def request(
        self,
        command: int,
        offset: int,
        length: int,
        data: bytes | bytearray = b"",
        *,
        flags: int = 0,
    ) -> tuple[int, bytes]:
        """Do one request; return its error and, for a good read, its data."""
        wanted = self.send_request(command, offset, length, data, flags=flags)
        cookie, error = self.reply()
        if cookie != wanted:
            raise AssertionError((cookie, wanted))
        if command == c.CMD_READ and not error:
            return error, self.receive(length)
        return error, b""

    def read(self, offset: int, length: int) -> bytes:
        """Read; OSError with the protocol's number on an error."""
        error, data = self.request(c.CMD_READ, offset, length)
        if error:
            raise OSError(error, "read failed")
        return data

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        """Write; OSError with the protocol's number on an error."""
        error, _ = self.request(c.CMD_WRITE, offset, len(data), data, flags=int(fua))
        if error:
            raise OSError(error, "write failed")

    def flush(self) -> None:
        """Flush; OSError with the protocol's number on an error."""
        error, _ = self.request(c.CMD_FLUSH, 0, 0)
        if error:
            raise OSError(error, "flush failed")

    def disconnect(self) -> None:
        """Say DISC."""
        self.send_request(c.CMD_DISC, 0, 0)


def info_request(name: str, *infos: int) -> bytes:
    """Return the data of INFO or GO."""
    text = name.encode()
    return (
        struct.pack(">I", len(text))
        + text
        + struct.pack(f">H{len(infos)}H", len(infos), *infos)
    )


class Dialer:
    """Makes clients of one server and hangs all of them up at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._clients: list[RawClient] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()

    def connect(self) -> RawClient:
        """Connect; nothing is said yet."""
        return self.adopt(RawClient.connect(self.path))

    def ready(self) -> RawClient:
        """Connect and go into the transmission phase."""
        return self.adopt(RawClient.ready(self.path))

    def adopt(self, client: RawClient) -> RawClient:
        """Have a client hung up too."""
        self._clients.append(client)
        return client


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run a server in a thread; stopped without draining at the end.

    An error that ended the loop is raised here.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as error:  # noqa: BLE001  # raised below
            failures.append(error)

    thread = threading.Thread(target=run, name="nbd-server")
    thread.start()
    try:
        yield server
    finally:
        server.request_stop(drain=False)
        thread.join(_PATIENCE)
    if failures:
        raise failures[0]
    if thread.is_alive():
        raise AssertionError("the server's loop does not end")


@contextlib.contextmanager
def serving(backend: Backend[Operation], path: Path) -> Iterator[Server]:
    """Serve a backend at a unix socket in a thread; closes the backend."""
    server = Server(backend, export_of(backend, name="volume"))
    server.listen(path)
    try:
        with running(server):
            yield server
    finally:
        backend.close()
