# SPDX-License-Identifier: Apache-2.0
"""Snapshots and clones of volumes in use, over the real sockets, on two nodes."""

from __future__ import annotations

import concurrent.futures
import os

import grpc
import pytest

from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.client import mount
from tests.ceph.end_to_end.client import reader
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.client import succeeds
from tests.ceph.end_to_end.test_replacing_processes import AGAIN
from tests.ceph.end_to_end.world import Machine
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.end_to_end.writer import Writer
from tests.ceph.end_to_end.writer import lost

SOURCE = {"encryptionPassphrase": "of the team that has the source"}
CLONE = {"encryptionPassphrase": "of the team that gets the clone"}
WITH_SOURCE = {**CLONE, "sourceEncryptionPassphrase": SOURCE["encryptionPassphrase"]}


@pytest.fixture(autouse=True)
def both(world: World, second: Machine) -> None:
    world.join(second)


def test_a_clone_of_a_busy_volume_lives_beside_its_source(
    world: World, second: Machine
) -> None:
    first = world.first
    volume = world.create(SOURCE)
    target = first.stage(volume, SOURCE)
    with Writer(target) as writer:
        writer.progress(20)
        promised = dict(writer.acknowledged)
        snapshot = world.snapshot(volume)
        writer.progress()
        clone = world.clone(WITH_SOURCE, snapshot)
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            second.client.stage(clone, second.staging(clone), SOURCE)
        cloned = second.stage(clone, CLONE)
        assert not lost(promised, cloned)
        # Under the names of the source's files: each has its own.
        with Writer(cloned) as other:
            other.progress(10)
            writer.progress(10)
    assert not writer.lost(target)
    assert not other.lost(cloned)
    first.unstage(volume)
    second.unstage(clone)
    assert not other.lost(first.stage(clone, CLONE))
    assert not writer.lost(second.stage(volume, SOURCE))
    first.unstage(clone)
    second.unstage(volume)


def test_a_clone_straight_from_a_volume_that_is_written(world: World) -> None:
    first = world.first
    volume = world.create(SOURCE)
    target = first.stage(volume, SOURCE)
    with Writer(target) as writer:
        writer.progress(20)
        promised = dict(writer.acknowledged)
        clone = world.clone(SOURCE, volume)
        assert not lost(promised, first.stage(clone, SOURCE))
        writer.progress()
    assert world.controller.snapshots(volume) == []
    assert world.record(volume).children == ()
    first.unstage(clone)
    first.unstage(volume)


@pytest.mark.parametrize(("fs", "size"), [("ext4", 64 * MIB), ("xfs", 304 * MIB)])
def test_a_larger_clone_is_full_sized_once_it_is_staged(
    world: World, fs: str, size: int
) -> None:
    first = world.first
    volume = world.create(SOURCE, size=size, capability=mount(fs))
    with Writer(first.stage(volume, SOURCE, mount(fs))) as writer:
        writer.progress()
        promised = dict(writer.acknowledged)
        clone = world.clone(
            WITH_SOURCE, volume, size=size + 192 * MIB, capability=mount(fs)
        )
    assert clone.capacity_bytes == size + 192 * MIB
    staging = first.staging(clone)
    first.client.stage(clone, staging, CLONE, mount(fs))
    found = os.statvfs(staging)
    assert found.f_blocks * found.f_frsize > 0.8 * clone.capacity_bytes
    assert not lost(promised, staging)
    first.client.unstage(clone, staging)
    first.unstage(volume)


def test_readers_on_two_nodes_stage_a_fresh_clone_at_once(
    world: World, second: Machine
) -> None:
    """One of them replays the journal, the other waits, as kubelet does."""
    volume = world.create(SOURCE)
    with Writer(world.first.stage(volume, SOURCE)) as writer:
        writer.progress(20)
        promised = dict(writer.acknowledged)
        clone = world.clone(WITH_SOURCE, volume, capability=reader())

    def stage(node: Machine) -> None:
        eventually(
            f"staging on {node.node_id}",
            lambda: succeeds(
                lambda: node.stage(clone, CLONE, reader()), grpc.StatusCode.ABORTED
            ),
            30,
        )

    assert not world.record(clone).recovered
    nodes = (world.first, second)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(stage, nodes))
    assert world.record(clone).recovered
    for node in nodes:
        assert not lost(promised, node.target(clone))
        with pytest.raises(OSError, match="Read-only file system"):
            (node.target(clone) / "another").write_bytes(b"x")
        node.unstage(clone)
    world.first.unstage(volume)


def test_a_controller_killed_while_it_clones(world: World) -> None:
    first = world.first
    volume = world.create(SOURCE)
    name = world.new_name()
    with Writer(first.stage(volume, SOURCE)) as writer:
        writer.progress()
        promised = dict(writer.acknowledged)
        snapshot = world.snapshot(volume)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        cloning = threads.submit(world.controller.clone, name, WITH_SOURCE, snapshot)
        eventually("its begin", lambda: bool(world.record(volume).children), 10)
        world.controller_part.restart(kill=True)
        error = cloning.exception()
    assert isinstance(error, grpc.RpcError)
    assert error.code() in AGAIN

    def clone() -> None:
        world.remember(world.controller.clone(name, WITH_SOURCE, snapshot))

    eventually("the repeated call", lambda: succeeds(clone, *AGAIN), 60)
    # Asked once more, it is the same one.
    found = world.controller.clone(name, WITH_SOURCE, snapshot)
    assert not lost(promised, first.stage(found, CLONE))
    assert world.record(volume).children == ()
    first.unstage(found)
    first.unstage(volume)


def test_a_clone_outlives_its_source_and_everybody_who_knew_its_secret(
    world: World, second: Machine
) -> None:
    first = world.first
    volume = world.create(SOURCE)
    with Writer(first.stage(volume, SOURCE)) as writer:
        writer.progress(20)
    first.unstage(volume)
    snapshot = world.snapshot(volume)
    clone = world.clone(WITH_SOURCE, snapshot)
    world.controller.delete(volume)
    world.controller.delete_snapshot(snapshot)
    for part in (world.controller_part, *first.parts, *second.parts):
        part.restart()
    assert volume.volume_id not in world.controller.ids()
    assert snapshot.snapshot_id not in {
        each.snapshot_id for each in world.controller.snapshots()
    }
    for node in (first, second):
        assert not writer.lost(node.stage(clone, CLONE))
        node.unstage(clone)
    assert world.left_in_ceph(volume), "the source went before its clone"
    world.controller.delete(clone)
    eventually("an empty pool", lambda: not world.left_in_ceph(volume, clone), 30)


def test_a_snapshot_is_as_large_as_what_was_there(world: World) -> None:
    """Not as large as what its volume was promised meanwhile."""
    first = world.first
    volume = world.create(SOURCE, capability=block())
    world.controller.expand(volume, 128 * MIB, SOURCE)
    early = world.snapshot(volume)
    assert early.size_bytes == 64 * MIB
    with refused(grpc.StatusCode.OUT_OF_RANGE):
        world.clone(SOURCE, early, size=32 * MIB, capability=block())
    clone = world.clone(SOURCE, early, capability=block())
    target = first.stage(volume, SOURCE, block())
    assert first.client.total_bytes(volume, target) == 128 * MIB
    late = world.snapshot(volume)
    assert late.size_bytes == 128 * MIB
    assert world.controller.get_snapshot(early.snapshot_id).size_bytes == 64 * MIB
    assert {each.snapshot_id for each in world.controller.snapshots(volume)} == {
        early.snapshot_id,
        late.snapshot_id,
    }
    target = first.stage(clone, SOURCE, block())
    assert first.client.total_bytes(clone, target) == 64 * MIB
    first.unstage(clone)
    first.unstage(volume)


def test_the_source_has_to_be_opened_once(world: World) -> None:
    volume = world.create(SOURCE, capability=block())
    wrong = {**CLONE, "sourceEncryptionPassphrase": "another's"}
    for secrets in (CLONE, wrong):
        with refused(
            grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.FAILED_PRECONDITION
        ) as refusal:
            world.clone(secrets, volume, capability=block())
        assert "sourceEncryptionPassphrase" in refusal[0].message
    assert world.controller.ids() >= {volume.volume_id}
    assert world.record(volume).children == ()
