# SPDX-License-Identifier: Apache-2.0
"""The protocol core under arbitrary bytes in arbitrary splits."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from csi_driver.nbd.protocol.errors import PeerProtocolError
from csi_driver.nbd.protocol.events import Disconnect
from csi_driver.nbd.protocol.events import HandshakeAborted
from csi_driver.nbd.protocol.events import TransmissionBegins
from csi_driver.nbd.protocol.events import Write
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.protocol.handshake import Handshake
from csi_driver.nbd.protocol.inbox import Inbox
from csi_driver.nbd.protocol.transmission import Transmission
from csi_driver.testing.nbd_client import info_request

EXPORT = Export(size=1 << 16, name="v")
U32 = st.integers(0, (1 << 32) - 1)
SMALL = st.sampled_from([0, 1, 512, 4096, 8192, 1 << 16, (1 << 16) + 4096])


class Consumer:
    """Drives the protocol as a server would, and notes what it says."""

    def __init__(self, *, handshake: bool) -> None:
        self.inbox = Inbox(1 << 14)
        self.seen: list[object] = []
        self.over = False
        self._protocol: Handshake | Transmission = (
            Handshake(EXPORT, self.inbox)
            if handshake
            else Transmission(EXPORT, self.inbox)
        )
        self._payload: memoryview | None = None
        self._filled = 0

    def work(self) -> None:
        """Take every event that the bytes so far allow."""
        try:
            while not self.over and self._finish_payload():
                event = self._protocol.next_event()
                if event is None:
                    return
                self.seen.append(event)
                if isinstance(event, TransmissionBegins):
                    self._protocol = Transmission(EXPORT, self.inbox)
                elif isinstance(event, Write):
                    self._payload, self._filled = memoryview(bytearray(event.length)), 0
                self.over = isinstance(event, Disconnect | HandshakeAborted)
        except PeerProtocolError as error:
            self.seen.append(str(error))
            self.over = True

    def _finish_payload(self) -> bool:
        if self._payload is None or isinstance(self._protocol, Handshake):
            return True
        self._filled += self._protocol.take_payload(self._payload[self._filled :])
        if self._protocol.payload_left:
            return False
        self.seen.append(bytes(self._payload))
        self._payload = None
        return True


def run(data: bytes, cuts: list[int], *, handshake: bool) -> list[object]:
    """Feed `data` cut at `cuts`; return events, payloads, and how it ended."""
    consumer = Consumer(handshake=handshake)
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in zip(edges, [*edges[1:], len(data)], strict=True):
        piece = memoryview(data)[start:end]
        consumer.work()
        while piece and not consumer.over:
            piece = piece[consumer.inbox.feed(piece) :]
            consumer.work()
    return consumer.seen


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    command = draw(st.sampled_from([0, 1, 1, 2, 3, 4, 6, 99]))
    flags = draw(st.sampled_from([0, 0, 1, 2, 65535]))
    length = draw(SMALL)
    header = struct.pack(
        ">IHHQQI", 0x25609513, flags, command, draw(U32), draw(SMALL), length
    )
    return header + (
        bytes([draw(st.integers(0, 255))]) * length if command == 1 else b""
    )


@st.composite
def options(draw: st.DrawFn) -> bytes:
    number = draw(st.sampled_from([1, 2, 3, 5, 6, 7, 7, 8, 11, 77]))
    data = draw(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([b"", b"v", info_request("v"), info_request("", 1, 3)]),
        )
    )
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


CUTS = st.lists(st.integers(0, 1 << 17), max_size=12)
TALK = st.tuples(
    st.sampled_from([b"\0\0\0\3", b"\0\0\0\1", b"\0\0\0\0"]),
    st.lists(options(), max_size=6).map(b"".join),
    st.lists(requests(), max_size=6).map(b"".join),
    st.binary(max_size=40),
).map(b"".join)


@given(st.binary(max_size=400), CUTS, st.booleans())
def test_noise_never_crashes(data: bytes, cuts: list[int], handshake: bool) -> None:
    whole = run(data, [], handshake=handshake)
    assert run(data, cuts, handshake=handshake) == whole


@given(TALK, CUTS)
def test_a_conversation_does_not_depend_on_its_splits(
    data: bytes, cuts: list[int]
) -> None:
    whole = run(data, [], handshake=True)
    assert run(data, cuts, handshake=True) == whole
    assert run(data, list(range(0, len(data), 7)), handshake=True) == whole


@given(st.lists(requests(), max_size=8).map(b"".join), CUTS)
def test_requests_do_not_depend_on_their_splits(data: bytes, cuts: list[int]) -> None:
    assert run(data, cuts, handshake=False) == run(data, [], handshake=False)


@given(st.lists(st.tuples(st.binary(max_size=10), st.integers(0, 8)), max_size=40))
def test_the_inbox_gives_back_what_it_got(pieces: list[tuple[bytes, int]]) -> None:
    inbox = Inbox(8)
    expected = bytearray()
    for piece, wanted in pieces:
        expected += piece[: inbox.feed(piece)]
        assert inbox.leftover() == bytes(expected)
        assert len(inbox.space()) or len(expected) == 8
        count = min(wanted, len(inbox))
        assert inbox.take(count) == bytes(expected[:count])
        del expected[:count]
