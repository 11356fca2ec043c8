# SPDX-License-Identifier: Apache-2.0
"""What other clients ask the lock's owner for, read off real messages.

The payloads are those of `rbd flatten` against an owner, on Ceph 18.2.7.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.images.foreign import SILENCE_SECONDS
from csi_driver.images.foreign import ForeignWork
from csi_driver.images.foreign import Kind
from csi_driver.images.foreign import Message
from csi_driver.images.foreign import RequestId
from csi_driver.images.foreign import decode

FLATTEN = bytes.fromhex(
    "07011c000000060000001410000000000000e036067ccd7f00000100000000000000"
)
PROGRESS = bytes.fromhex(
    "07012c000000040000001410000000000000e036067ccd7f00000100000000000000"
    "04000000000000004400000000000000"
)
COMPLETE = bytes.fromhex(
    "070120000000050000001410000000000000e036067ccd7f0000010000000000000000000000"
)
HEADER_UPDATE = bytes.fromhex("07010400000003000000")
REQUEST = RequestId(client=0x1014, watch=0x7FCD7C0636E0, number=1)


@pytest.mark.parametrize(
    ("payload", "meaning"),
    [
        (FLATTEN, Message(Kind.FLATTEN, REQUEST)),
        (PROGRESS, Message(Kind.PROGRESS, REQUEST, done=4, total=68)),
        (COMPLETE, Message(Kind.COMPLETE, REQUEST, result=0)),
        (HEADER_UPDATE, None),
        (b"", None),
    ],
)
def test_captured_messages(payload: bytes, meaning: Message | None) -> None:
    assert decode(payload) == meaning


def test_a_failure_is_negative() -> None:
    message = decode(COMPLETE[:-4] + (-22).to_bytes(4, "little", signed=True))
    assert message is not None
    assert message.result == -22


@pytest.mark.parametrize("payload", [FLATTEN, PROGRESS, COMPLETE])
def test_a_newer_message_is_read_if_older_readers_may(payload: bytes) -> None:
    assert decode(bytes([9]) + payload[1:]) == decode(payload)
    assert decode(bytes([9, 8]) + payload[2:]) is None


@pytest.mark.parametrize("payload", [FLATTEN, PROGRESS, COMPLETE])
def test_what_is_cut_off_or_too_long_is_passed_over(payload: bytes) -> None:
    for length in range(len(payload)):
        assert decode(payload[:length]) is None
    assert decode(payload + b"\0") is None


@given(st.binary(max_size=80))
def test_noise_harms_nothing(noise: bytes) -> None:
    decode(noise)
    ForeignWork().hear(noise, 0.0)


def test_work_is_under_way_between_request_and_end() -> None:
    work = ForeignWork()
    assert not work.under_way(0)
    work.hear(FLATTEN, 0)
    work.hear(PROGRESS, 1)
    assert work.under_way(2)
    work.hear(COMPLETE, 3)
    assert not work.under_way(3)


def test_progress_that_comes_late_begins_nothing() -> None:
    work = ForeignWork()
    work.hear(FLATTEN, 0)
    work.hear(COMPLETE, 1)
    work.hear(PROGRESS, 2)
    assert not work.under_way(2)


def test_progress_alone_tells_of_work_whose_request_was_missed() -> None:
    work = ForeignWork()
    work.hear(PROGRESS, 0)
    assert work.under_way(1)


def test_silence_ends_it_as_well() -> None:
    work = ForeignWork()
    work.hear(FLATTEN, 0)
    work.hear(PROGRESS, 100)
    assert work.under_way(100 + SILENCE_SECONDS - 1)
    assert not work.under_way(100 + SILENCE_SECONDS)
    assert not work.under_way(106, silence=5)


def test_requests_do_not_end_each_other() -> None:
    other = FLATTEN[:-8] + (2).to_bytes(8, "little")
    work = ForeignWork()
    work.hear(FLATTEN, 0)
    work.hear(other, 0)
    work.hear(COMPLETE, 1)
    assert work.under_way(2)
