# SPDX-License-Identifier: Apache-2.0
"""What a shrink never cuts off."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.provisioning.shrinking import FLAG
from csi_driver.provisioning.shrinking import Shrink
from csi_driver.provisioning.shrinking import require_outside
from tests.unit.domain.strategies import a_record


def ext4(size: int, *, unclean: bool = False) -> bytes:
    head = bytearray(4096)
    incompatible = 0x80 | (0x4 if unclean else 0)
    fields = [(4, size // 4096), (0x18, 2), (0x20, 32768), (0x60, incompatible)]
    for offset, value in fields:
        struct.pack_into("<I", head, 1024 + offset, value)
    struct.pack_into("<H", head, 1024 + 0x38, 0xEF53)
    return bytes(head)


def xfs(size: int) -> bytes:
    return (b"XFSB" + struct.pack(">IQ", 4096, size // 4096)).ljust(4096, b"\0")


def refusal(
    state: FilesystemState,
    head: bytes,
    size: int,
    *,
    vouched: bool = False,
    recovered: bool = True,
) -> str:
    record = dataclasses.replace(a_record(), filesystem=state, recovered=recovered)
    try:
        require_outside(record, head, Shrink(EffectiveSize(size), vouched))
    except PreconditionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("vouched", [False, True])
@pytest.mark.parametrize(
    ("state", "head"),
    [
        (FilesystemState.EXT4, ext4(64 * MIB)),
        (FilesystemState.XFS, xfs(64 * MIB)),
        (FilesystemState.FOREIGN, ext4(64 * MIB)),
        (FilesystemState.FOREIGN, xfs(64 * MIB)),
    ],
)
def test_a_filesystem_is_never_cut(
    state: FilesystemState, head: bytes, *, vouched: bool
) -> None:
    assert not refusal(state, head, 64 * MIB, vouched=vouched)
    assert "67108864 bytes" in refusal(state, head, 64 * MIB - 4096, vouched=vouched)


def test_a_journal_may_hold_another_size() -> None:
    head = ext4(64 * MIB, unclean=True)
    assert "journal" in refusal(FilesystemState.EXT4, head, 64 * MIB)
    head = ext4(64 * MIB)
    said = refusal(FilesystemState.EXT4, head, 64 * MIB, recovered=False)
    assert "never mounted" in said
    assert "not settled" in refusal(FilesystemState.MAKING, bytes(4096), 4096)


@pytest.mark.parametrize("state", [FilesystemState.EXT4, FilesystemState.XFS])
def test_a_filesystem_that_is_not_there(state: FilesystemState) -> None:
    assert "no such superblock" in refusal(state, bytes(4096), 4096, vouched=True)


@pytest.mark.parametrize("state", [FilesystemState.RAW, FilesystemState.FOREIGN])
def test_unknown_content_needs_somebody_to_vouch(state: FilesystemState) -> None:
    assert FLAG in refusal(state, bytes(4096), 4096)
    assert not refusal(state, bytes(4096), 4096, vouched=True)


def test_nothing_can_be_lost_of_an_empty_volume() -> None:
    assert not refusal(FilesystemState.NONE, bytes(4096), 4096)
