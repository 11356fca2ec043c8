# SPDX-License-Identifier: Apache-2.0
"""Plaintext images as they stand: raw size and offsets, shrink, flatten.

A header serves as their content: to this handle it is data like any other.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import RawSize
from csi_driver.images.port import Pool
from tests.contract.images.worlds import MakeImage
from tests.contract.images.worlds import id_of
from tests.contract.images.worlds import make_clone
from tests.contract.images.worlds import make_snapshot


@pytest.fixture
def clone(
    pool: Pool, make_image: MakeImage, new_name: Callable[[], str], header: bytes
) -> str:
    """Make an image with content and a clone of it; return the clone's name."""
    source = make_image(header=header)
    make_snapshot(pool, source, "snap")
    name = new_name()
    make_clone(pool, source, "snap", name)
    return name


def test_a_clone_is_read_at_raw_offsets(
    pool: Pool, clone: str, header: bytes, make_image: MakeImage
) -> None:
    with pool.open_plain(id_of(pool, clone), read_only=True) as image:
        assert image.raw_size() == RawSize(64 * MIB)
        assert image.read(0, len(header)) == header
        assert image.read(4096, 100) == header[4096:4196]
        with pytest.raises(SizeError):
            image.read(64 * MIB - 1, 2)


def test_a_flatten_copies_the_bytes_as_they_are(
    pool: Pool, clone: str, header: bytes
) -> None:
    image_id = id_of(pool, clone)
    with pool.open_plain(image_id) as image:
        with pytest.raises(InUseError):
            image.flatten(lambda _done, _total: True)
        image.acquire_lock()
        with pytest.raises(CancelledError):
            image.flatten(lambda _done, _total: False)
        image.flatten(lambda _done, _total: True)
        assert image.read(0, len(header)) == header
        with pytest.raises(PreconditionError):
            image.flatten(lambda _done, _total: True)
    with pool.open_raw(image_id, read_only=True) as raw:
        assert raw.parent() is None
        assert raw.read_header(len(header)) == header


def test_a_shrink_cuts_raw_bytes_and_spares_snapshots(
    pool: Pool, clone: str, header: bytes
) -> None:
    image_id = id_of(pool, clone)
    number = make_snapshot(pool, clone, "before")
    with pool.open_plain(image_id) as image:
        with pytest.raises(InUseError):
            image.shrink(RawSize(40960))
        image.acquire_lock()
        with pytest.raises(SizeError):
            image.shrink(RawSize(64 * MIB + 512))
        image.shrink(RawSize(40960))
        assert image.raw_size() == RawSize(40960)
        assert image.read(0, 40960) == header[:40960]
    with pool.open_raw(image_id, read_only=True) as raw:
        assert raw.raw_size() == RawSize(40960)
    with pool.open_plain(image_id, snapshot=number) as snapshot:
        assert snapshot.raw_size() == RawSize(64 * MIB)
        assert snapshot.read(0, len(header)) == header
