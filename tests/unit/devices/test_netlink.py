# SPDX-License-Identifier: Apache-2.0
"""What the kernel's NBD client is told, attribute by attribute."""

from __future__ import annotations

import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.devices import genetlink
from csi_driver.devices import netlink
from csi_driver.devices.genetlink import MalformedMessageError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError

SIZES = st.integers(1, 2**63 - 1)
INDEXES = st.integers(0, 2**20)
IDENTIFIERS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1)


def parse(attributes: tuple[bytes, ...]) -> dict[int, bytes]:
    pairs = genetlink.parse_attributes(b"".join(attributes))
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def u64(payload: bytes) -> int:
    return int(struct.unpack("=Q", payload)[0])


@given(SIZES, IDENTIFIERS, st.none() | INDEXES)
def test_connect_says_everything_that_must_be_said(
    size: int, identifier: str, index: int | None
) -> None:
    request = netlink.Connect(size, 0b1101, identifier, 9, 600, index)
    found = parse(netlink.connect_attributes(request))
    assert u64(found.pop(netlink.ATTR_SIZE_BYTES)) == size
    assert u64(found.pop(netlink.ATTR_BLOCK_SIZE_BYTES)) == 4096
    assert u64(found.pop(netlink.ATTR_TIMEOUT)) == 0
    assert u64(found.pop(netlink.ATTR_SERVER_FLAGS)) == 0b1101
    assert u64(found.pop(netlink.ATTR_DEAD_CONN_TIMEOUT)) == 600
    assert found.pop(netlink.ATTR_BACKEND_IDENTIFIER) == identifier.encode() + b"\0"
    ((item, content),) = genetlink.parse_attributes(found.pop(netlink.ATTR_SOCKETS))
    assert item == netlink.SOCK_ITEM
    assert genetlink.parse_attributes(content) == ((1, struct.pack("=I", 9)),)
    sent_index = found.pop(netlink.ATTR_INDEX, None)
    assert sent_index == (None if index is None else struct.pack("=I", index))
    assert found == {}


@given(INDEXES, IDENTIFIERS, SIZES)
def test_a_resize_carries_nothing_but_the_size(
    index: int, identifier: str, size: int
) -> None:
    """A timeout would reset the request timeout, sockets would hang the kernel."""
    found = parse(netlink.resize_attributes(index, identifier, size))
    assert set(found) == {
        netlink.ATTR_INDEX,
        netlink.ATTR_BACKEND_IDENTIFIER,
        netlink.ATTR_SIZE_BYTES,
    }
    assert u64(found[netlink.ATTR_SIZE_BYTES]) == size


@given(INDEXES, IDENTIFIERS)
def test_a_reattach_carries_no_size(index: int, identifier: str) -> None:
    found = parse(netlink.reattach_attributes(index, identifier, 3))
    assert set(found) == {
        netlink.ATTR_INDEX,
        netlink.ATTR_BACKEND_IDENTIFIER,
        netlink.ATTR_SOCKETS,
    }


@given(st.dictionaries(INDEXES, st.booleans(), max_size=20))
def test_status_lists_every_device(devices: dict[int, bool]) -> None:
    listing = b"".join(
        genetlink.nested(
            netlink.DEVICE_ITEM,
            genetlink.attribute_u32(netlink.DEVICE_INDEX, index),
            genetlink.attribute(netlink.DEVICE_CONNECTED, bytes([connected])),
        )
        for index, connected in devices.items()
    )
    assert netlink.parse_status({netlink.ATTR_DEVICE_LIST: listing}) == devices


def test_a_status_without_index_is_malformed() -> None:
    listing = genetlink.nested(netlink.DEVICE_ITEM)
    with pytest.raises(MalformedMessageError, match="device index"):
        netlink.parse_status({netlink.ATTR_DEVICE_LIST: listing})


def test_a_call_that_never_returns_is_given_up() -> None:
    release = threading.Event()
    with pytest.raises(UnavailableError, match=r"within 0\.05 s"):
        netlink.bounded("a stuck call", 0.05, release.wait)
    release.set()


def test_a_calls_result_and_error_come_through() -> None:
    assert netlink.bounded("a call", 5, lambda: 42) == 42

    def refuse() -> None:
        raise PreconditionError("no")

    with pytest.raises(PreconditionError, match="no"):
        netlink.bounded("a call", 5, refuse)

    def slow() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        netlink.bounded("a call", 5, slow)
