# SPDX-License-Identifier: Apache-2.0
"""What plain librbd 18.2.7 does to data, and why the driver refuses to ask for it.

If one of these fails on a newer librbd, a rule of the driver may be relaxed.
"""

from __future__ import annotations

import random

import pytest

from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Striping
from tests.ceph.images.conftest import Flat
from tests.ceph.images.conftest import Lab

LUKS2 = 1
LUKS_ANY = 2
DATA = random.Random(9).randbytes(MIB)  # noqa: S311  # test data


def test_a_format_of_a_loaded_flat_image_destroys_its_data(
    lab: Lab,
    flat: Flat,
) -> None:
    key = flat.dek.reveal()
    with lab.rbd.Image(lab.ioctx, flat.name) as image:
        image.encryption_load2(((LUKS_ANY, key),))
        image.write(DATA, 0)
        image.encryption_format(LUKS2, key)  # no error
    with lab.pool.open_loaded(flat.image_id, flat.specs) as loaded:
        assert loaded.read(0, len(DATA)) != DATA  # the same passphrase, other bytes


def test_a_second_load_is_refused_by_librbd_too(lab: Lab, flat: Flat) -> None:
    specs = ((LUKS_ANY, flat.dek.reveal()),)
    with lab.rbd.Image(lab.ioctx, flat.name) as image:
        image.encryption_load2(specs)
        with pytest.raises(lab.rbd.ImageExists):
            image.encryption_load2(specs)


def test_small_stripe_units_mix_up_encrypted_blocks(lab: Lab) -> None:
    """Written in one request, read in several: the bytes are not the same."""
    striping = Striping(4 * MIB, 64 * 1024, 4)
    with lab.flat(striping) as flat:
        with lab.rbd.Image(lab.ioctx, flat.name) as image:
            image.encryption_load2(((LUKS_ANY, flat.dek.reveal()),))
            image.write(DATA, 0)
            assert image.read(0, len(DATA)) == DATA
            pieces = [image.read(at, 4096) for at in range(0, len(DATA), 4096)]
        wrong = sum(
            piece != DATA[index * 4096 :][:4096] for index, piece in enumerate(pieces)
        )
        assert wrong > len(pieces) // 2
        with pytest.raises(UnsupportedError, match="mixes up"):
            lab.pool.open_loaded(flat.image_id, flat.specs)


def test_a_raw_write_goes_around_the_encryption(lab: Lab, flat: Flat) -> None:
    """Why raw handles of the driver reach the header area and nothing else."""
    with lab.rbd.Image(lab.ioctx, flat.name) as image:
        image.write(DATA, 16 * MIB)
    assert lab.object(flat.image_id, 4)[: len(DATA)] == DATA
    with lab.pool.open_loaded(flat.image_id, flat.specs) as loaded:
        assert loaded.read(0, len(DATA)) != DATA


def test_a_write_across_the_end_is_cut(lab: Lab, flat: Flat) -> None:
    """Why every range is checked before librbd sees it."""
    with lab.rbd.Image(lab.ioctx, flat.name) as image:
        image.encryption_load2(((LUKS_ANY, flat.dek.reveal()),))
        with pytest.raises(lab.rbd.IncompleteWriteError):
            image.write(bytes(8192), 32 * MIB - 4096)
        assert len(image.read(32 * MIB - 4096, 8192)) == 4096
