# SPDX-License-Identifier: Apache-2.0
"""The handshake, option by option."""

from __future__ import annotations

import struct

import pytest

from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.protocol.errors import LocalProtocolError
from csi_driver.nbd.protocol.errors import PeerProtocolError
from csi_driver.nbd.protocol.events import HandshakeAborted
from csi_driver.nbd.protocol.events import HandshakeEvent
from csi_driver.nbd.protocol.events import Send
from csi_driver.nbd.protocol.events import TransmissionBegins
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.protocol.handshake import MAXIMUM_OPTION
from csi_driver.nbd.protocol.handshake import MAXIMUM_OPTIONS
from csi_driver.nbd.protocol.handshake import MAXIMUM_SKIP
from csi_driver.nbd.protocol.handshake import Handshake
from csi_driver.nbd.protocol.inbox import Inbox
from csi_driver.testing.nbd_client import info_request

EXPORT = Export(size=1 << 30, name="vol", can_multi_conn=True)
GREETING = b"NBDMAGICIHAVEOPT\x00\x03"


def option(number: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def answer(number: int, kind: int, data: bytes = b"") -> bytes:
    return (
        bytes.fromhex("0003e889045565a9")
        + struct.pack(">III", number, kind, len(data))
        + data
    )


def converse(data: bytes, flags: int = 3) -> tuple[bytes, list[HandshakeEvent]]:
    """Return what was sent after the greeting, and the other events."""
    inbox = Inbox()
    handshake = Handshake(EXPORT, inbox)
    data = struct.pack(">I", flags) + data
    sent = b""
    others: list[HandshakeEvent] = []
    while True:
        event = handshake.next_event()
        if isinstance(event, Send):
            sent += event.data
        elif event is not None:
            others.append(event)
            break
        else:
            taken = inbox.feed(data)
            data = data[taken:]
            if not taken:
                break
    assert sent.startswith(GREETING)
    return sent[len(GREETING) :], others


EXPORT_INFO = struct.pack(">HQH", 0, 1 << 30, 0b100001101)
BLOCK_INFO = struct.pack(">HIII", 3, 4096, 4096, 32 << 20)


@pytest.mark.parametrize("name", ["", "vol"])
def test_go_tells_size_flags_and_blocks_and_begins(name: str) -> None:
    sent, events = converse(option(7, info_request(name)))
    assert sent == (answer(7, 3, EXPORT_INFO) + answer(7, 3, BLOCK_INFO) + answer(7, 1))
    assert events == [TransmissionBegins()]


def test_info_tells_the_same_and_goes_on() -> None:
    sent, events = converse(option(6, info_request("vol", 1, 3)) + option(2))
    assert sent == (
        answer(6, 3, EXPORT_INFO)
        + answer(6, 3, BLOCK_INFO)
        + answer(6, 3, b"\x00\x01vol")
        + answer(6, 1)
        + answer(2, 1)
    )
    assert events == [HandshakeAborted()]


@pytest.mark.parametrize("number", [6, 7])
def test_an_unknown_export_is_named_so(number: int) -> None:
    assert converse(option(number, info_request("other"))) == (
        answer(number, c.OptionReply.ERR_UNKNOWN),
        [],
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x09vol\x00\x00",
        info_request("vol") + b"\x00",
        b"\xff\xff\xff\xffvol\x00\x00",
        b"\x00\x00\x00\x03vol\x00\x02\x00\x00",
    ],
)
@pytest.mark.parametrize("number", [6, 7])
def test_malformed_info_is_invalid_and_in_step(number: int, data: bytes) -> None:
    sent, events = converse(option(number, data) + option(2))
    assert sent == answer(number, c.OptionReply.ERR_INVALID) + answer(2, 1)
    assert events == [HandshakeAborted()]


def test_list_names_the_export() -> None:
    sent, _ = converse(option(3))
    assert sent == answer(3, 2, b"\x00\x00\x00\x03vol") + answer(3, 1)


def test_list_with_data_is_invalid() -> None:
    assert converse(option(3, b"x"))[0] == answer(3, c.OptionReply.ERR_INVALID)


@pytest.mark.parametrize(
    ("flags", "padding"), [(3, b""), (1, bytes(124)), (2, b""), (0, bytes(124))]
)
def test_export_name_answers_in_its_own_form(flags: int, padding: bytes) -> None:
    sent, events = converse(option(1, b"vol"), flags)
    assert sent == struct.pack(">QH", 1 << 30, 0b100001101) + padding
    assert events == [TransmissionBegins()]


def test_export_name_cannot_say_no() -> None:
    with pytest.raises(PeerProtocolError, match="unknown export"):
        converse(option(1, b"other"))
    with pytest.raises(PeerProtocolError, match="too long"):
        converse(option(1, bytes(MAXIMUM_OPTION + 1)))


@pytest.mark.parametrize("number", [0, 4, 5, 8, 9, 10, 11, 12, 0xFFFFFFFF])
def test_unknown_options_are_unsupported_and_in_step(number: int) -> None:
    sent, events = converse(option(number, b"some data") + option(2))
    assert sent == answer(number, c.OptionReply.ERR_UNSUP) + answer(2, 1)
    assert events == [HandshakeAborted()]


@pytest.mark.parametrize("number", [3, 6, 7, 99])
def test_oversized_options_are_skipped(number: int) -> None:
    sent, events = converse(option(number, bytes(MAXIMUM_SKIP)) + option(2))
    assert sent == answer(number, c.OptionReply.ERR_TOO_BIG) + answer(2, 1)
    assert events == [HandshakeAborted()]


def test_absurd_options_end_it_before_their_data() -> None:
    with pytest.raises(PeerProtocolError, match="claims"):
        converse(option(99, bytes(MAXIMUM_SKIP + 1))[:16])


def test_haggling_is_bounded() -> None:
    with pytest.raises(PeerProtocolError, match="one too many"):
        converse(option(3) * (MAXIMUM_OPTIONS + 1))


@pytest.mark.parametrize("flags", [4, 7, 1 << 31])
def test_unknown_client_flags_end_it(flags: int) -> None:
    with pytest.raises(PeerProtocolError, match="client flags"):
        converse(b"", flags)


def test_only_export_name_without_fixed_newstyle() -> None:
    with pytest.raises(PeerProtocolError, match="fixed newstyle"):
        converse(option(7, info_request("")), 0)


def test_a_wrong_magic_ends_it_for_good() -> None:
    inbox = Inbox()
    handshake = Handshake(EXPORT, inbox)
    inbox.feed(bytes(4) + bytes(16))
    assert handshake.next_event() == Send(GREETING)
    with pytest.raises(PeerProtocolError, match="option magic"):
        handshake.next_event()
    with pytest.raises(LocalProtocolError):
        handshake.next_event()


def test_bytes_behind_go_stay_for_the_transmission() -> None:
    inbox = Inbox()
    handshake = Handshake(EXPORT, inbox)
    inbox.feed(struct.pack(">I", 3) + option(7, info_request("")) + b"request")
    while handshake.next_event() != TransmissionBegins():
        pass
    assert inbox.leftover() == b"request"
    with pytest.raises(LocalProtocolError, match="over"):
        handshake.next_event()
