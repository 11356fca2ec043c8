# SPDX-License-Identifier: Apache-2.0
"""The judge of requests: every rule, every number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.errors import SizeError
from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.protocol.export import verdict

SIZE = 1 << 20
MAX = 32 << 20
PLAIN = Export(size=SIZE)
READ_ONLY = Export(size=SIZE, read_only=True)
LARGE = Export(size=64 << 20)

TABLE = [
    # command, flags, offset, length, error
    (c.CMD_READ, 0, 0, 4096, 0),
    (c.CMD_READ, 0, SIZE - 4096, 4096, 0),
    (c.CMD_READ, 0, 0, SIZE, 0),
    (c.CMD_READ, c.CMD_FLAG_FUA, 0, 4096, 0),
    (c.CMD_READ, 0, SIZE, 4096, 22),
    (c.CMD_READ, 0, SIZE - 4096, 8192, 22),
    (c.CMD_READ, 0, (1 << 64) - 4096, 4096, 22),
    (c.CMD_READ, 0, 0, 0, 22),
    (c.CMD_READ, 0, 0, 512, 22),
    (c.CMD_READ, 0, 512, 4096, 22),
    (c.CMD_READ, 0, 1, 1, 22),
    (c.CMD_READ, 2, 0, 4096, 22),
    (c.CMD_READ, 1 << 15, 0, 4096, 22),
    (c.CMD_WRITE, 0, 0, 4096, 0),
    (c.CMD_WRITE, c.CMD_FLAG_FUA, 0, 4096, 0),
    (c.CMD_WRITE, c.CMD_FLAG_FUA | 2, 0, 4096, 22),
    (c.CMD_WRITE, 0, SIZE, 4096, 28),
    (c.CMD_WRITE, 0, SIZE - 4096, 8192, 28),
    (c.CMD_WRITE, 0, (1 << 64) - 4096, 4096, 28),
    (c.CMD_WRITE, 0, 0, 0, 22),
    (c.CMD_WRITE, 0, 0, 4095, 22),
    (c.CMD_WRITE, 0, SIZE + 1, 4096, 22),
    (c.CMD_WRITE, 0, 0, MAX + 4096, 22),
    (c.CMD_READ, 0, 0, MAX + 4096, 22),
    (c.CMD_FLUSH, 0, 0, 0, 0),
    (c.CMD_FLUSH, c.CMD_FLAG_FUA, 0, 0, 0),
    (c.CMD_FLUSH, 2, 0, 0, 22),
    (c.CMD_FLUSH, 0, 4096, 0, 22),
    (c.CMD_FLUSH, 0, 0, 4096, 22),
    (4, 0, 0, 4096, 22),  # TRIM, not offered
    (5, 0, 0, 4096, 22),  # CACHE
    (6, 0, 0, 4096, 22),  # WRITE_ZEROES, not offered
    (7, 0, 0, 4096, 22),  # BLOCK_STATUS
    (65535, 0, 0, 0, 22),
]


@pytest.mark.parametrize(("command", "flags", "offset", "length", "error"), TABLE)
def test_each_request_gets_its_number(
    command: int, flags: int, offset: int, length: int, error: int
) -> None:
    assert verdict(PLAIN, command, flags, offset, length) == error


def test_writes_to_a_read_only_export_are_not_permitted() -> None:
    assert verdict(READ_ONLY, c.CMD_WRITE, 0, 0, 4096) == c.EPERM
    assert verdict(READ_ONLY, c.CMD_WRITE, 0, SIZE, 4096) == c.EPERM
    assert verdict(READ_ONLY, c.CMD_READ, 0, 0, 4096) == c.OK
    assert verdict(READ_ONLY, c.CMD_FLUSH, 0, 0, 0) == c.OK


def test_the_largest_payload_is_allowed_and_one_block_more_is_not() -> None:
    assert verdict(LARGE, c.CMD_WRITE, 0, 0, MAX) == c.OK
    assert verdict(LARGE, c.CMD_WRITE, 0, 0, MAX + 4096) == c.EINVAL


def test_what_is_not_offered_is_refused() -> None:
    bare = Export(size=SIZE, can_fua=False, can_flush=False)
    assert verdict(bare, c.CMD_WRITE, c.CMD_FLAG_FUA, 0, 4096) == c.EINVAL
    assert verdict(bare, c.CMD_FLUSH, 0, 0, 0) == c.EINVAL


def test_a_ceiling_is_announced_but_the_size_judges() -> None:
    export = Export(size=SIZE, ceiling=1 << 30)
    assert export.announced_size == 1 << 30
    assert verdict(export, c.CMD_READ, 0, SIZE, 4096) == c.EINVAL
    assert verdict(export, c.CMD_WRITE, 0, SIZE, 4096) == c.ENOSPC


def test_flags_tell_what_the_export_can() -> None:
    assert PLAIN.flags == 0b1101
    assert READ_ONLY.flags == 0b1111
    assert Export(size=SIZE, can_multi_conn=True).flags == 0b100001101
    assert Export(size=0, can_flush=False, can_fua=False).flags == 0b1


@pytest.mark.parametrize(
    ("size", "ceiling", "block"),
    [
        (4095, None, 4096),
        (-4096, None, 4096),
        (1 << 63, None, 4096),
        (8192, 4096, 4096),
        (8192, 12289, 4096),
        (8192, None, 3000),
        (8192, None, 0),
        (1 << 20, None, 131072),
    ],
)
def test_an_export_that_cannot_be_is_refused(
    size: int, ceiling: int | None, block: int
) -> None:
    with pytest.raises(SizeError):
        Export(size=size, ceiling=ceiling, minimum_block=block)


@given(
    st.integers(0, 9),
    st.integers(0, 65535),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 32) - 1),
    st.booleans(),
)
def test_nothing_outside_of_the_export_ever_passes(
    command: int, flags: int, offset: int, length: int, read_only: bool
) -> None:
    export = Export(size=SIZE, read_only=read_only)
    if verdict(export, command, flags, offset, length) == c.OK:
        assert offset + length <= SIZE
        assert command in {c.CMD_READ, c.CMD_WRITE, c.CMD_FLUSH}
        assert not (command == c.CMD_WRITE and read_only)
        assert offset % 4096 == 0
        assert length % 4096 == 0
        assert flags in {0, c.CMD_FLAG_FUA}
