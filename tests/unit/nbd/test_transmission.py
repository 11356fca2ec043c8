# SPDX-License-Identifier: Apache-2.0
"""Requests as events, and what the caller owes the parser."""

from __future__ import annotations

import struct

import pytest

from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.protocol.errors import LocalProtocolError
from csi_driver.nbd.protocol.errors import PeerProtocolError
from csi_driver.nbd.protocol.events import Disconnect
from csi_driver.nbd.protocol.events import Flush
from csi_driver.nbd.protocol.events import Read
from csi_driver.nbd.protocol.events import Rejected
from csi_driver.nbd.protocol.events import Write
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.protocol.inbox import Inbox
from csi_driver.nbd.protocol.replies import error_of
from csi_driver.nbd.protocol.replies import simple_reply
from csi_driver.nbd.protocol.transmission import MAXIMUM_SKIP
from csi_driver.nbd.protocol.transmission import Transmission


def request(command: int, offset: int, length: int, flags: int = 0) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, flags, command, 7, offset, length)


def begin(data: bytes) -> Transmission:
    inbox = Inbox()
    assert inbox.feed(data) == len(data)
    return Transmission(Export(size=1 << 20), inbox)


def test_reads_flushes_and_disconnects_come_out() -> None:
    protocol = begin(request(0, 4096, 8192) + request(3, 0, 0) + request(2, 0, 0))
    assert protocol.next_event() == Read(7, 4096, 8192)
    assert protocol.next_event() == Flush(7)
    assert protocol.next_event() == Disconnect()
    with pytest.raises(LocalProtocolError, match="over"):
        protocol.next_event()


@pytest.mark.parametrize(("flags", "fua"), [(0, False), (1, True)])
def test_a_write_comes_out_before_its_payload(flags: int, fua: bool) -> None:
    protocol = begin(request(1, 0, 4096, flags))
    assert protocol.next_event() == Write(7, 0, 4096, fua)
    with pytest.raises(LocalProtocolError, match="payload"):
        protocol.next_event()


def test_payload_is_taken_and_received_in_any_mixture() -> None:
    protocol = begin(request(1, 0, 8192) + b"a" * 100)
    protocol.next_event()
    target = memoryview(bytearray(8192))
    assert protocol.take_payload(target) == 100
    protocol.payload_received(4000)
    protocol.inbox.feed(b"b" * (8192 - 4100) + request(3, 0, 0))
    assert protocol.take_payload(target[4100:]) == 4092
    assert bytes(target[:101]) == b"a" * 100 + b"\0"
    assert protocol.next_event() == Flush(7)


def test_payload_cannot_be_received_past_a_filled_inbox() -> None:
    protocol = begin(request(1, 0, 4096) + b"a")
    protocol.next_event()
    with pytest.raises(LocalProtocolError):
        protocol.payload_received(10)
    protocol.take_payload(memoryview(bytearray(1)))
    with pytest.raises(LocalProtocolError):
        protocol.payload_received(4096)


def test_a_refused_write_is_skipped_with_its_payload() -> None:
    protocol = begin(request(1, 1 << 20, 8192) + bytes(5000))
    assert protocol.next_event() is None
    assert not protocol.between_requests
    protocol.inbox.feed(bytes(3192) + request(3, 0, 0))
    assert protocol.next_event() == Rejected(7, c.ENOSPC)
    assert protocol.next_event() == Flush(7)
    assert protocol.between_requests


def test_a_refused_read_has_no_payload() -> None:
    protocol = begin(request(0, 1, 1) + request(9, 0, 4096) + request(3, 0, 0))
    assert protocol.next_event() == Rejected(7, c.EINVAL)
    assert protocol.next_event() == Rejected(7, c.EINVAL)
    assert protocol.next_event() == Flush(7)


def test_too_large_a_write_is_skipped_up_to_a_point() -> None:
    protocol = begin(request(1, 0, MAXIMUM_SKIP))
    left = MAXIMUM_SKIP
    while left:
        assert protocol.next_event() is None
        left -= protocol.inbox.feed(bytes(min(left, 1 << 18)))
    assert protocol.next_event() == Rejected(7, c.EINVAL)


def test_an_absurd_write_ends_the_connection() -> None:
    protocol = begin(request(1, 0, MAXIMUM_SKIP + 1))
    with pytest.raises(PeerProtocolError, match="claims"):
        protocol.next_event()


def test_a_wrong_magic_ends_the_connection_for_good() -> None:
    protocol = begin(bytes(28))
    with pytest.raises(PeerProtocolError, match="magic"):
        protocol.next_event()
    with pytest.raises(LocalProtocolError):
        protocol.next_event()


def test_a_new_size_judges_the_next_request() -> None:
    protocol = begin(request(0, 1 << 20, 4096) * 2)
    assert protocol.next_event() == Rejected(7, c.EINVAL)
    protocol.export = Export(size=2 << 20)
    assert protocol.next_event() == Read(7, 1 << 20, 4096)


def test_replies_are_sixteen_bytes() -> None:
    assert simple_reply(7, 5).hex() == "67446698000000050000000000000007"


@pytest.mark.parametrize(
    ("number", "error"),
    [(1, 1), (5, 5), (12, 5), (22, 5), (28, 28), (30, 1), (108, 108), (110, 5)],
)
def test_backend_errors_become_protocol_errors(number: int, error: int) -> None:
    assert error_of(number) == error
