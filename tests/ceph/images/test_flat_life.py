# SPDX-License-Identifier: Apache-2.0
"""A flat encrypted image from its header to its growth, seen from outside, too."""

from __future__ import annotations

import os
import random

import pytest

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.headers import SPARSE_LENGTH
from tests.ceph.images.conftest import Flat
from tests.ceph.images.conftest import Lab

STRIPINGS = [
    Striping(),
    Striping(MIB, MIB),
    Striping(8 * MIB, 8 * MIB),
    Striping(32 * MIB, 32 * MIB),
    Striping(4 * MIB, 4 * MIB, 3),
]


@pytest.mark.parametrize("striping", STRIPINGS, ids=str)
def test_a_flat_image_lives(lab: Lab, striping: Striping) -> None:
    pool = lab.pool
    rng = random.Random(11)  # noqa: S311  # test data
    first, last = rng.randbytes(100_000), rng.randbytes(5000)
    with lab.flat(striping) as flat:
        with pool.open_loaded(flat.image_id, flat.specs) as image:
            assert image.size() == EffectiveSize(32 * MIB)
            image.write(12_345, first)
            image.write(32 * MIB - len(last), last)
        with pool.open_loaded(flat.image_id, flat.specs) as image:
            assert image.read(12_345, len(first)) == first
            grown = EffectiveSize(48 * MIB)
            image.grow(grown)
            image.write(48 * MIB - len(first), first)
        with pool.open_raw(flat.image_id, read_only=True) as raw:
            assert raw.raw_size() == flat.layout.raw(grown)
        with pool.open_loaded(flat.image_id, flat.specs, read_only=True) as image:
            assert image.size() == grown
            assert image.read(12_345, len(first)) == first
            assert image.read(32 * MIB - len(last), len(last)) == last
            assert image.read(48 * MIB - len(first), len(first)) == first


def test_a_header_is_sparse(lab: Lab, flat: Flat) -> None:
    """16 MiB of reserve take one object of 288 KiB; librbd writes all four whole."""
    assert lab.objects(flat.image_id) == {0: SPARSE_LENGTH}
    assert SPARSE_LENGTH == 288 * KIB


def test_the_dek_opens_and_nothing_else(lab: Lab, flat: Flat) -> None:
    wrong = LoadSpecs((LayerSpec(SecretBytes(os.urandom(32))),))
    with pytest.raises(SecretError):
        lab.pool.open_loaded(flat.image_id, wrong)
    with lab.pool.open_loaded(flat.image_id, flat.specs) as image:
        image.acquire_lock()  # the failed load left nothing behind
        with pytest.raises(SecretError):
            lab.pool.open_loaded(flat.image_id, wrong)


def test_an_erased_header_leaves_nothing_to_open(lab: Lab, flat: Flat) -> None:
    with lab.pool.open_raw(flat.image_id) as raw:
        raw.erase_header(16 * MIB)
    assert lab.raw_bytes(flat.name)[: 16 * MIB] == bytes(16 * MIB)


def test_no_key_stands_in_rados(lab: Lab, flat: Flat) -> None:
    with lab.pool.open_loaded(flat.image_id, flat.specs) as image:
        image.write(0, b"canary-content--" * 4096)
    for number in lab.objects(flat.image_id):
        content = lab.object(flat.image_id, number)
        assert flat.dek.reveal() not in content
        assert b"canary-content" not in content


def test_a_loaded_image_is_not_formatted_by_us(lab: Lab, flat: Flat) -> None:
    with lab.pool.open_loaded(flat.image_id, flat.specs) as image:
        image.write(0, b"kept")
        with pytest.raises(AlreadyLoadedError, match="destroy its data"):
            image.write_header(flat.header)
        with pytest.raises(AlreadyLoadedError, match="second load"):
            image.load(flat.specs)
        assert image.read(0, 4) == b"kept"
