# SPDX-License-Identifier: Apache-2.0
"""Headers: of flat images and of clones, and how much room they need."""

from __future__ import annotations

import os
import uuid

import pytest

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.luks import parse_header
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Layout
from csi_driver.images.headers import DEK_LENGTH
from csi_driver.images.headers import SMALLEST_ROOM
from csi_driver.images.headers import SPARSE_LENGTH
from csi_driver.images.headers import clone_header
from csi_driver.images.headers import make_header
from csi_driver.images.headers import require_header_room
from csi_driver.testing.luks import open_header

SECOND = 16384
"""Where the second copy of the metadata begins."""


@pytest.mark.parametrize("reserve", [MIB, 2 * MIB, 4 * MIB, 16 * MIB, 64 * MIB])
def test_a_header_for_any_room(reserve: int) -> None:
    dek, header_uuid = SecretBytes(os.urandom(DEK_LENGTH)), uuid.uuid4()
    header = make_header(dek, header_uuid, Layout(reserve))
    assert len(header) == SPARSE_LENGTH
    for form, kind in (
        (header, HeaderKind.LUKS2),
        (clone_header(header), HeaderKind.CLONE_LUKS2),
    ):
        found = parse_header(form)
        assert (found.kind, found.uuid) == (kind, str(header_uuid))
        assert found.data_offset == reserve
        opened = open_header(form, dek.reveal())
        assert (opened.data_offset, opened.sector_size) == (reserve, 4096)


def test_a_clones_header_differs_in_its_magics_alone() -> None:
    dek = SecretBytes(os.urandom(DEK_LENGTH))
    header = make_header(dek, uuid.uuid4(), Layout(16 * MIB))
    swapped = clone_header(header)
    assert swapped[:4] == b"RBDL"
    assert swapped[SECOND : SECOND + 4] == b"LDBR"
    differing = [at for at, byte in enumerate(header) if swapped[at] != byte]
    assert set(differing) <= {*range(4), *range(SECOND, SECOND + 4)}
    assert header_kind(swapped).formatted_clone
    with pytest.raises(InternalError, match="no magic at 0"):
        clone_header(swapped)
    with pytest.raises(InternalError, match=f"no magic at {SECOND}"):
        clone_header(header[:SECOND] + bytes(SECOND))
    with pytest.raises(InternalError):
        clone_header(b"")


def test_a_source_needs_room_for_its_clones_header() -> None:
    for reserve in (SMALLEST_ROOM, 16 * MIB):
        require_header_room(Layout(reserve), "volume 'pvc-1'")
    for reserve in (0, SMALLEST_ROOM - 1):
        with pytest.raises(PreconditionError, match=r"pvc-1.*copy it"):
            require_header_room(Layout(reserve), "volume 'pvc-1'")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_has_its_length(length: int) -> None:
    with pytest.raises(InternalError, match=str(DEK_LENGTH)):
        make_header(SecretBytes(bytes(length)), uuid.uuid4(), Layout(16 * MIB))
