# SPDX-License-Identifier: Apache-2.0
"""Staged clones that are flattened, grown and slowed down while they are used."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import grpc

from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.client import mount
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.end_to_end.writer import Writer
from tests.ceph.end_to_end.writer import lost

SOURCE = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
CLONE = {"encryptionKey": "EjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjQ="}
WITH_SOURCE = {**CLONE, "sourceEncryptionKey": SOURCE["encryptionKey"]}
BLOCK = 4096


def test_a_clone_flattens_itself_under_its_writer_and_frees_its_source(
    world: World,
) -> None:
    first = world.first
    volume = world.create(SOURCE)
    with Writer(first.stage(volume, SOURCE)) as writer:
        writer.progress(50)
    first.unstage(volume)
    snapshot = world.snapshot(volume)
    clone = world.clone(WITH_SOURCE, snapshot, size=512 * MIB, flattenPolicy="always")
    target = first.stage(clone, CLONE)
    kept = target / "kept"
    kept.mkdir()
    for name in writer.acknowledged:
        (target / name).rename(kept / name)
    with Writer(target) as during:
        world.await_flat(clone)
        during.progress()
    world.controller.delete(volume)
    world.controller.delete_snapshot(snapshot)
    eventually("the source's end", lambda: not world.left_in_ceph(volume), 30)
    first.unstage(clone)
    target = first.stage(clone, CLONE)
    assert not during.lost(target)
    for name in writer.acknowledged:
        (target / "kept" / name).rename(target / f"kept-{name}")
    promised = {f"kept-{each}": text for each, text in writer.acknowledged.items()}
    assert not lost(promised, target)
    first.unstage(clone)
    world.controller.delete(clone)
    eventually("an empty pool", lambda: not world.left_in_ceph(clone), 30)


def test_a_staged_clone_grows_with_its_parent_and_without(world: World) -> None:
    first, xfs = world.first, mount("xfs")
    volume = world.create(SOURCE, size=304 * MIB, capability=xfs)
    with Writer(first.stage(volume, SOURCE, xfs)) as writer:
        writer.progress(20)
        promised = dict(writer.acknowledged)
        clone = world.clone(WITH_SOURCE, volume, capability=xfs)
    first.unstage(volume)
    target = first.stage(clone, CLONE, xfs)

    def expand(size: int) -> None:
        world.controller.expand(clone, size, CLONE)
        assert first.client.expand(clone, target, size) == size
        assert first.client.total_bytes(clone, target) > 0.8 * size

    expand(448 * MIB)
    assert world.record(clone).ancestors == 1
    assert not lost(promised, target)
    world.flatten(clone)
    expand(640 * MIB)
    (target / "large").write_bytes(os.urandom(64 * MIB))
    assert not lost(promised, target)
    first.unstage(clone)
    assert not lost(promised, first.stage(clone, CLONE, xfs))
    first.unstage(clone)


def seconds_of_writes(target: Path, count: int) -> float:
    """Write so many single blocks past every cache; return how long it takes."""
    with mmap.mmap(-1, BLOCK) as page:
        page.write(os.urandom(BLOCK))
        descriptor = os.open(target, os.O_WRONLY | os.O_DIRECT)
        try:
            begin = time.monotonic()
            for number in range(count):
                os.pwrite(descriptor, page, number * BLOCK)
            return time.monotonic() - begin
        finally:
            os.close(descriptor)


def test_limits_of_a_staged_clone_are_obeyed_within_two_seconds(world: World) -> None:
    first = world.first
    volume = world.create(SOURCE, capability=block())
    clone = world.clone(WITH_SOURCE, volume, capability=block())
    target = first.stage(clone, CLONE, block())
    seconds_of_writes(target, 1)
    free = seconds_of_writes(target, 200)
    world.controller.modify(clone, iops="50")
    time.sleep(2)
    limited = seconds_of_writes(target, 200)
    # librbd lets a second's worth pass at once.
    assert 2.8 < limited < 6, f"{limited:.1f} s"
    assert free < limited / 1.5, f"{free:.1f} s and {limited:.1f} s"
    for wrong in ({"iops": "many"}, {"iops": "0", "iop": "5"}, {"bandwidth": "1Q"}):
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            world.controller.modify(clone, **wrong)
    assert world.record(clone).limits.iops == 50
    world.controller.modify(clone, iops="0")
    time.sleep(2)
    again = seconds_of_writes(target, 200)
    assert again < limited / 1.5, f"{again:.1f} s and {limited:.1f} s"
    first.unstage(clone)
