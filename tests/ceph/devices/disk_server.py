# SPDX-License-Identifier: Apache-2.0
"""A small NBD server on a file, for tests of devices only.

    disk_server.py FILE FLAGS unix SOCKET     newstyle handshake, any connections
    disk_server.py FILE FLAGS fd NUMBER       transmission phase on one socket

FLAGS are NBD's transmission flags, offered as they are; the environment variable
FAIL_READS makes each READ an EIO.  It is independent of the driver's own server,
so that a fault of that one cannot hide in these tests.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading

OPTION_MAGIC = 0x49484156454F5054
REQUEST = struct.Struct(">IHHQQI")
REPLY_MAGIC = 0x67446698
READ, WRITE, DISCONNECT, FLUSH, WRITE_ZEROES = 0, 1, 2, 3, 6
EXPORT_NAME, ABORT, INFO, GO = 1, 2, 6, 7
ACK, SEND_INFO, UNSUPPORTED = 1, 3, (1 << 31) + 1
EIO, EINVAL = 5, 22


class Disk:
    """The file and what is offered about it."""

    def __init__(self, path: str, flags: int) -> None:
        self.file = os.open(path, os.O_RDWR)
        self.flags = flags
        self.fail_reads = "FAIL_READS" in os.environ

    @property
    def size(self) -> int:
        return os.fstat(self.file).st_size

    def answer(
        self, kind: int, offset: int, length: int, data: bytes
    ) -> tuple[int, bytes]:
        """Do one request; (error, data to send)."""
        if kind == READ:
            if self.fail_reads or offset + length > self.size:
                return EIO, b""
            return 0, os.pread(self.file, length, offset)
        if kind == WRITE:
            os.pwrite(self.file, data, offset)
        elif kind == WRITE_ZEROES:
            os.pwrite(self.file, bytes(length), offset)
        elif kind == FLUSH:
            os.fdatasync(self.file)
        else:
            return EINVAL, b""
        return 0, b""


def transmit(disk: Disk, connection: socket.socket) -> None:
    """Serve requests until the other side leaves."""
    stream = connection.makefile("rb", buffering=1 << 20)
    while header := stream.read(REQUEST.size):
        if len(header) < REQUEST.size:
            return
        _, _, kind, cookie, offset, length = REQUEST.unpack(header)
        if kind == DISCONNECT:
            return
        data = stream.read(length) if kind == WRITE else b""
        error, content = disk.answer(kind, offset, length, data)
        reply = struct.pack(">IIQ", REPLY_MAGIC, error, cookie)
        connection.sendall(reply + content)


def negotiate(disk: Disk, connection: socket.socket) -> bool:
    """Handshake; True when transmission begins."""
    connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    connection.recv(4, socket.MSG_WAITALL)
    while header := connection.recv(16, socket.MSG_WAITALL):
        option: int
        _, option, length = struct.unpack(">QII", header)
        if length:
            connection.recv(length, socket.MSG_WAITALL)
        if option == EXPORT_NAME:
            connection.sendall(struct.pack(">QH", disk.size, disk.flags))
            return True
        if option in {INFO, GO}:
            info = struct.pack(">HQH", 0, disk.size, disk.flags)
            reply(connection, option, SEND_INFO, info)
        supported = option in {INFO, GO, ABORT}
        reply(connection, option, ACK if supported else UNSUPPORTED)
        if option in {GO, ABORT}:
            return option == GO
    return False


def reply(connection: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    """Send one option reply."""
    head = struct.pack(">QIII", 0x0003E889045565A9, option, kind, len(data))
    connection.sendall(head + data)


def serve(disk: Disk, connection: socket.socket) -> None:
    """Serve one client to its end; one that leaves abruptly is no fault."""
    with connection:
        try:
            if negotiate(disk, connection):
                transmit(disk, connection)
        except (BrokenPipeError, ConnectionResetError):
            return


def main() -> None:
    """Serve as the arguments say."""
    path, flags, how, where = sys.argv[1:]
    disk = Disk(path, int(flags))
    if how == "fd":
        with socket.socket(fileno=int(where)) as connection:
            transmit(disk, connection)
        return
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(where)
        listener.listen(16)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(disk, connection), daemon=True).start()


if __name__ == "__main__":
    main()
