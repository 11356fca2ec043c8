# SPDX-License-Identifier: Apache-2.0
"""Netlink messages and attributes, built and parsed."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.devices import genetlink
from csi_driver.devices.genetlink import MalformedMessageError
from csi_driver.devices.genetlink import NetlinkError

KINDS = st.integers(0, genetlink.NLA_TYPE_MASK)
PAYLOADS = st.binary(max_size=300)


@given(st.lists(st.tuples(KINDS, PAYLOADS)))
def test_attributes_round_trip_and_stay_aligned(items: list[tuple[int, bytes]]) -> None:
    data = b"".join(genetlink.attribute(kind, payload) for kind, payload in items)
    assert len(data) % 4 == 0
    assert genetlink.parse_attributes(data) == tuple(items)


@given(st.lists(PAYLOADS, max_size=5), KINDS, st.integers(0, 2**64 - 1))
def test_every_payload_starts_on_a_4_byte_border(
    before: list[bytes], kind: int, value: int
) -> None:
    """The kernel reads u64 payloads unaligned, but headers only aligned."""
    head = b"".join(genetlink.attribute(1, payload) for payload in before)
    data = head + genetlink.attribute_u64(kind, value)
    assert len(head) % 4 == 0
    assert len(data) - len(head) == 12
    assert struct.unpack("=Q", data[-8:]) == (value,)


@given(st.lists(PAYLOADS, max_size=5), KINDS)
def test_nested_attributes_carry_the_flag(children: list[bytes], kind: int) -> None:
    inner = [genetlink.attribute(1, child) for child in children]
    data = genetlink.nested(kind, *inner)
    (raw_kind,) = struct.unpack_from("=H", data, 2)
    assert raw_kind == kind | 0x8000
    ((parsed_kind, payload),) = genetlink.parse_attributes(data)
    assert parsed_kind == kind
    assert [child for _, child in genetlink.parse_attributes(payload)] == children


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_attributes_or_an_error(data: bytes) -> None:
    try:
        found = genetlink.parse_attributes(data)
    except MalformedMessageError:
        return
    assert sum(4 + len(payload) for _, payload in found) <= len(data)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_messages_or_an_error(data: bytes) -> None:
    try:
        messages = list(genetlink.split_messages(data))
        for message in messages:
            genetlink.parse_acknowledgement(message)
    except MalformedMessageError:
        return
    assert sum(16 + len(message.payload) for message in messages) <= len(data)


@pytest.mark.parametrize("kind", [-1, 0x4000, 0x10001])
def test_a_type_beyond_14_bits_is_refused(kind: int) -> None:
    with pytest.raises(ValueError, match="14 bits"):
        genetlink.attribute(kind, b"")


def test_a_payload_beyond_16_bits_is_refused() -> None:
    genetlink.attribute(1, bytes(65531))
    with pytest.raises(ValueError, match="too long"):
        genetlink.attribute(1, bytes(65532))


def test_a_string_ends_with_one_nul_and_has_none_inside() -> None:
    assert genetlink.attribute_string(2, "nbd") == b"\x08\0\x02\0nbd\0"
    with pytest.raises(ValueError, match="NUL"):
        genetlink.attribute_string(2, "nb\0d")


def test_the_familys_request_has_the_documented_bytes() -> None:
    body = genetlink.build_generic(3, 1, genetlink.attribute_string(2, "nbd"))
    message = genetlink.build_message(0x10, 5, 7, body)
    assert message == struct.pack("=IHHIIBBH", 28, 0x10, 5, 7, 0, 3, 1, 0) + (
        b"\x08\0\x02\0nbd\0"
    )
    (parsed,) = genetlink.split_messages(message)
    assert (parsed.kind, parsed.flags, parsed.sequence) == (0x10, 5, 7)
    assert genetlink.generic_attributes(parsed.payload) == {2: b"nbd\0"}


def acknowledge(number: int, detail: str, *, capped: bool) -> genetlink.Message:
    request = genetlink.build_message(0x20, 5, 7, genetlink.build_generic(1, 1))
    quoted = request[:16] if capped else request
    attributes = genetlink.attribute_string(1, detail) if detail else b""
    flags = genetlink.NLM_F_ACK_TLVS if detail else 0
    flags |= genetlink.NLM_F_CAPPED if capped else 0
    payload = struct.pack("=i", -number) + quoted + attributes
    return genetlink.Message(genetlink.NLMSG_ERROR, flags, 7, payload)


@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("detail", ["", "size is not a multiple"])
@pytest.mark.parametrize("number", [0, errno.EBUSY])
def test_acknowledgements(number: int, detail: str, capped: bool) -> None:
    message = acknowledge(number, detail, capped=capped)
    found = genetlink.parse_acknowledgement(message)
    assert (found.errno, found.detail) == (number, detail)


def test_errors_are_sentences() -> None:
    plain = NetlinkError("NBD_CMD_CONNECT", errno.EBUSY, "")
    assert str(plain) == (
        "NBD_CMD_CONNECT was refused by the kernel: Device or resource busy (EBUSY)"
    )
    detailed = NetlinkError("NBD_CMD_CONNECT", errno.EINVAL, "size missing")
    assert str(detailed).endswith("size missing (EINVAL)")


def test_a_short_generic_payload_is_malformed() -> None:
    with pytest.raises(MalformedMessageError):
        genetlink.generic_attributes(b"\1\1")
