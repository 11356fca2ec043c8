# SPDX-License-Identifier: Apache-2.0
"""`volume shrink` on real Ceph: every byte of head and snapshots, and refusals."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import rbd

from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.port import Pool
from csi_driver.provisioning.shrinking import Shrink
from csi_driver.provisioning.shrinking import shrink
from tests.ceph.administration.making import SIZE
from tests.ceph.administration.making import Maker
from tests.ceph.administration.making import pattern
from tests.unit.provisioning.worlds import SECRET


def to(maker: Maker, record: Record, size: int, *, vouched: bool = True) -> Record:
    """Shrink in this process."""
    asked = Shrink(EffectiveSize(size), vouched)
    ceph = maker.world.connector.connect(maker.world.cluster)
    try:
        pool: Pool = ceph.pool(maker.world.pool_name, maker.world.namespace)
        return shrink(pool, record.image_id, asked, SECRET)
    finally:
        ceph.close()


@pytest.mark.parametrize("kind", ["flat", "clone", "plaintext", "plaintext clone"])
def test_head_and_snapshots_keep_every_byte(maker: Maker, kind: str) -> None:
    record = maker.volume("source", encrypted="plaintext" not in kind)
    content = bytearray(pattern("source", SIZE))
    if "clone" in kind:
        record = maker.clone(record, "clone")
        own = b"own".ljust(3 * MIB, b"#")
        maker.write(record, 5 * MIB + 4096, own)
        content[5 * MIB + 4096 : 8 * MIB + 4096] = own
    snapshots = {}
    # A whole object, whole blocks that are no object, and one block.
    for size in (20 * MIB, 13 * MIB + 5 * BLOCK_SIZE, 7 * BLOCK_SIZE, BLOCK_SIZE):
        taken = maker.snapshot(record, f"before {size}")
        snapshots[taken.number] = bytes(content)
        changed = to(maker, record, size)
        assert changed == maker.record(record)
        assert changed.actual == changed.desired == EffectiveSize(size)
        content = content[:size]
        assert maker.content(record) == content
        with maker.pool.open_raw(record.image_id, read_only=True) as image:
            assert image.raw_size().count == size + record.layout.reserve
        for number, expected in snapshots.items():
            assert maker.content(record, number) == expected
    assert maker.findings(record) == {}


def test_what_grows_again_reads_zeros(maker: Maker) -> None:
    record = maker.clone(maker.volume("source"), "clone")
    to(maker, record, 5 * BLOCK_SIZE)
    with maker.rbd_image(record) as image:
        image.resize(record.layout.reserve + SIZE)
    grown = maker.change(
        record.image_id, actual=EffectiveSize(SIZE), desired=EffectiveSize(SIZE)
    )
    expected = pattern("source", SIZE)[: 5 * BLOCK_SIZE]
    assert maker.content(grown) == expected.ljust(SIZE, b"\0")


def test_interrupted_behind_the_record_it_is_ended_by_repeating(maker: Maker) -> None:
    record = maker.volume("volume")
    size = EffectiveSize(9 * BLOCK_SIZE)
    maker.change(record.image_id, actual=size, desired=size)
    assert maker.findings(record).keys() == {"size-larger"}
    to(maker, record, size.count)
    assert maker.findings(record) == {}
    assert maker.content(record) == pattern("volume", SIZE)[: size.count]
    with pytest.raises(SizeError, match="already"):
        to(maker, record, size.count)


def test_sizes_that_are_none(maker: Maker) -> None:
    record = maker.volume("volume")
    with pytest.raises(SizeError, match="whole blocks"):
        to(maker, record, 0)
    with pytest.raises(SizeError, match="whole blocks"):
        to(maker, record, 5000)
    with pytest.raises(SizeError, match="growing"):
        to(maker, record, SIZE + BLOCK_SIZE)
    assert maker.findings(record) == {}


def test_unknown_content_is_not_cut_without_a_word(maker: Maker) -> None:
    record = maker.volume("volume")
    volume_id = str(maker.volume_id(record))
    words = ["shrink", volume_id, "--size", "8Mi", "--secret-file", str(maker.secret)]
    done = maker.run(*words)
    assert done.returncode == 1
    assert "--content-ends-before-size" in done.stderr
    assert maker.content(record) == pattern("volume", SIZE)
    done = maker.run(*words, "--content-ends-before-size")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("volume: 8 MiB now")
    assert maker.content(record) == pattern("volume", SIZE)[: 8 * MIB]


def test_never_below_a_filesystem(maker: Maker, tmp_path: Path) -> None:
    record = maker.volume("volume")
    file = tmp_path / "ext4"
    file.write_bytes(bytes(16 * MIB))
    make = ["mkfs.ext4", "-q", "-E", "nodiscard", str(file)]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    maker.write(record, 0, file.read_bytes())
    maker.change(record.image_id, filesystem=FilesystemState.EXT4)
    for vouched in (False, True):
        with pytest.raises(PreconditionError, match="16777216 bytes, more"):
            to(maker, record, 16 * MIB - BLOCK_SIZE, vouched=vouched)
    maker.change(record.image_id, recovered=False)
    with pytest.raises(PreconditionError, match="never mounted"):
        to(maker, record, 16 * MIB)
    maker.change(record.image_id, recovered=True)
    to(maker, record, 16 * MIB, vouched=False)
    assert maker.content(record) == file.read_bytes()


def test_a_staged_volume_is_refused(maker: Maker) -> None:
    record = maker.volume("volume")
    with maker.rbd_image(record) as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        with pytest.raises(InUseError, match="unstage it first"):
            to(maker, record, BLOCK_SIZE)
    assert maker.record(record) == record
    assert maker.findings(record) == {}
