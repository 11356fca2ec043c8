# SPDX-License-Identifier: Apache-2.0
"""Data through a loaded handle: effective offsets, growing, freshness."""

from __future__ import annotations

import os
import random
import uuid

import pytest

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.headers import make_header
from csi_driver.images.port import Pool
from tests.contract.images.worlds import MakeImage
from tests.contract.images.worlds import World
from tests.contract.images.worlds import id_of


@pytest.mark.parametrize(
    "striping",
    [
        Striping(),
        Striping(MIB, MIB),
        Striping(MIB, MIB, 3),
        Striping(64 * KIB, 64 * KIB, 4),
    ],
    ids=str,
)
def test_what_was_written_is_read(
    pool: Pool,
    peer_pool: Pool,
    make_image: MakeImage,
    striping: Striping,
) -> None:
    dek = SecretBytes(os.urandom(32))
    layout = Layout.for_striping(striping)
    header = make_header(dek, uuid.uuid4(), layout)
    specs = LoadSpecs((LayerSpec(dek),))
    size = layout.raw(EffectiveSize(12 * MIB)).count
    image_id = id_of(pool, make_image(size=size, header=header, striping=striping))
    rng = random.Random(7)  # noqa: S311  # test data
    model: dict[int, int] = {}
    with pool.open_loaded(image_id, specs) as image:
        for _ in range(20):
            at = rng.randrange(0, 12 * MIB - 9000)
            data = rng.randbytes(rng.choice([1, 511, 512, 4096, 4097, 9000]))
            image.write(at, data)
            model.update(enumerate(data, at))
            assert image.read(at, len(data)) == data
        tail = rng.randbytes(10)
        image.write(12 * MIB - 10, tail)
    with peer_pool.open_loaded(image_id, specs, read_only=True) as image:
        found = image.read(0, 12 * MIB)
        assert all(found[at] == byte for at, byte in model.items())
        assert found.endswith(tail)


def test_objects_never_written_read_zeros(
    pool: Pool,
    flat: str,
    specs: LoadSpecs,
) -> None:
    with pool.open_loaded(flat, specs) as image:
        image.write(4 * MIB, b"x")
        assert image.read(0, 4 * MIB) == bytes(4 * MIB)
        assert image.read(8 * MIB, 4 * MIB) == bytes(4 * MIB)
        assert image.read(4 * MIB + 4096, 4096) == bytes(4096)  # behind its end


def test_nothing_reaches_beyond_the_end(
    pool: Pool,
    flat: str,
    specs: LoadSpecs,
) -> None:
    end = 48 * MIB
    with pool.open_loaded(flat, specs) as image:
        image.write(end - 4096, b"e" * 4096)
        for offset, length in ((end, 1), (end - 4095, 4096), (-1, 2), (0, end + 1)):
            with pytest.raises(SizeError):
                image.read(offset, length)
            with pytest.raises(SizeError):
                image.write(offset, bytes(length))
        with pytest.raises(SizeError):
            image.read(0, -1)
        assert image.read(end - 4096, 4096) == b"e" * 4096
        assert image.read(end, 0) == b""
        image.write(end, b"")


def test_growing_adds_exported_bytes(
    pool: Pool,
    peer_pool: Pool,
    flat: str,
    specs: LoadSpecs,
) -> None:
    with (
        pool.open_loaded(flat, specs) as image,
        peer_pool.open_loaded(flat, specs) as watcher,
        peer_pool.open_raw(flat, read_only=True) as reader,
    ):
        image.write(48 * MIB - 4, b"last")
        image.grow(EffectiveSize(48 * MIB))
        image.grow(EffectiveSize(100 * MIB))
        assert image.size() == EffectiveSize(100 * MIB)
        assert watcher.size() == EffectiveSize(100 * MIB)
        assert reader.raw_size() == RawSize(64 * MIB)  # as it was at the opening
        image.write(100 * MIB - 4, b"more")
        assert image.read(48 * MIB - 4, 4) == b"last"
        with pytest.raises(SizeError):
            image.grow(EffectiveSize(48 * MIB))
        assert image.size() == EffectiveSize(100 * MIB)
    with pool.open_raw(flat) as raw:
        assert raw.raw_size() == RawSize(116 * MIB)


def test_the_owner_of_the_lock_gives_a_size_its_own_meaning(
    pool: Pool,
    peer_pool: Pool,
    flat: str,
    specs: LoadSpecs,
) -> None:
    """Why only the handle that owns the lock may resize, and reads back."""
    with pool.open_loaded(flat, specs) as image:
        with peer_pool.open_raw(flat) as raw_owner:
            raw_owner.acquire_lock()
            with pytest.raises(InvalidRequestError):
                image.grow(EffectiveSize(60 * MIB))  # below 64 MiB, taken raw
            image.grow(EffectiveSize(100 * MIB))
            assert raw_owner.raw_size() == RawSize(100 * MIB)
            assert image.size() == EffectiveSize(84 * MIB)
        with peer_pool.open_loaded(flat, specs) as loaded_owner:
            loaded_owner.acquire_lock()
            image.grow(EffectiveSize(100 * MIB))
            assert loaded_owner.size() == EffectiveSize(100 * MIB)


def test_a_read_only_handle_reads_and_changes_nothing(
    pool: Pool,
    peer_pool: Pool,
    flat: str,
    specs: LoadSpecs,
) -> None:
    with (
        pool.open_loaded(flat, specs) as writer,
        peer_pool.open_loaded(flat, specs, read_only=True) as reader,
    ):
        writer.acquire_lock()
        writer.write(0, b"fresh")
        assert reader.read(0, 5) == b"fresh"
        with pytest.raises(InUseError):
            reader.write(0, b"no")
        with pytest.raises(InUseError):
            reader.grow(EffectiveSize(100 * MIB))
        assert writer.size() == EffectiveSize(48 * MIB)


def test_raw_bytes_are_not_what_was_written(
    world: World,
    pool: Pool,
    make_image: MakeImage,
    header: bytes,
    specs: LoadSpecs,
) -> None:
    """A header put onto other data decrypts that data to something else."""
    name = make_image(header=header)
    image_id = id_of(pool, name)
    with pool.open_loaded(image_id, specs) as image:
        image.write(0, b"plain" * 1000)
    other = make_image(header=make_header_again(specs))
    with pool.open_loaded(id_of(pool, other), specs) as image:
        image.write(0, b"plain" * 1000)
    world.write_raw(pool, other, header)
    with pool.open_loaded(id_of(pool, other), specs) as image:
        assert image.read(0, 5000) != b"plain" * 1000


def make_header_again(specs: LoadSpecs) -> bytes:
    """Make another header, with a volume key of its own, for the same passphrase."""
    return make_header(specs.layers[0].passphrase, uuid.uuid4(), Layout(16 * MIB))
