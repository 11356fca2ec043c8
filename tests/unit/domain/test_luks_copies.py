# SPDX-License-Identifier: Apache-2.0
"""Which copy of a LUKS2 header's metadata is intact, by its checksum."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.luks_copies import intact_copy
from csi_driver.domain.luks_copies import second_copy

LENGTHS = [16 << 10, 32 << 10, 1 << 20]


def copy(at: int, length: int, magic: bytes, sealed_with: bytes) -> bytes:
    """Make one copy, as LUKS2 On-Disk Format 1.1.4 has it in §2.1."""
    made = bytearray(length)
    made[6:8] = b"\0\2"
    made[8:16] = length.to_bytes(8, "big")
    made[72:78] = b"sha256"
    made[256:264] = at.to_bytes(8, "big")
    made[4096:4110] = b'{"segments":{}'
    made[0:6] = sealed_with
    made[448:480] = hashlib.sha256(made).digest()
    made[0:6] = magic
    return bytes(made)


def header(length: int, *, clone: bool) -> bytearray:
    first = b"RBDL\xba\xbe" if clone else b"LUKS\xba\xbe"
    second = b"LDBR\xba\xbe" if clone else b"SKUL\xba\xbe"
    return bytearray(
        copy(0, length, first, b"LUKS\xba\xbe")
        + copy(length, length, second, b"SKUL\xba\xbe")
    )


@pytest.mark.parametrize("clone", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_both_copies_are_found(length: int, *, clone: bool) -> None:
    made = bytes(header(length, clone=clone))
    assert intact_copy(made, 0)
    assert second_copy(made) == length
    assert not intact_copy(made, 512)
    assert not intact_copy(made[: length - 1], 0)
    assert second_copy(made[: 2 * length - 1]) is None


@given(st.integers(0, (32 << 10) - 1), st.integers(1, 255), st.booleans())
def test_one_altered_byte_is_noticed(at: int, flip: int, clone: bool) -> None:
    made = header(16 << 10, clone=clone)
    made[at] ^= flip
    first, second = intact_copy(bytes(made), 0), second_copy(bytes(made))
    # What stands behind the digest in the checksum's field is not covered.
    spare = 480 <= at % (16 << 10) < 512
    assert first is (at >= 16 << 10 or spare)
    assert (second is not None) is (at < 16 << 10 or spare)


@given(st.binary(max_size=20000))
def test_arbitrary_bytes_are_no_copy(text: bytes) -> None:
    assert not intact_copy(text, 0)
    assert second_copy(text) is None
