# SPDX-License-Identifier: Apache-2.0
"""One volume and two nodes, each with its own service and datapath."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import grpc
import pytest

from csi_driver.rpc.stubs import csi_pb2
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.client import mount
from tests.ceph.end_to_end.client import reader
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.client import succeeds
from tests.ceph.end_to_end.world import Machine
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.end_to_end.writer import Writer

SECRETS = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}


@pytest.fixture(autouse=True)
def both(world: World, second: Machine) -> None:
    world.join(second)


def refuse_delete(world: World, volume: csi_pb2.Volume) -> str:
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        world.controller.delete(volume)
    return refusal[0].message


@pytest.mark.parametrize("capability", [mount(), block()], ids=["mount", "block"])
def test_a_second_writer_is_refused_with_the_first_ones_name(
    world: World, second: Machine, capability: csi_pb2.VolumeCapability
) -> None:
    volume = world.create(SECRETS, capability=capability)
    first = world.first
    first.stage(volume, SECRETS, capability)
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        second.client.stage(volume, second.staging(volume), SECRETS, capability)
    assert "node-a" in refusal[0].message
    assert not second.alive(volume)
    assert first.alive(volume)
    refuse_delete(world, volume)
    first.unstage(volume)
    second.stage(volume, SECRETS, capability)
    refuse_delete(world, volume)
    second.unstage(volume)
    world.forget(volume)
    world.controller.delete(volume)
    assert volume.volume_id not in world.controller.ids()


def test_data_moves_from_node_to_node(world: World, second: Machine) -> None:
    volume = world.create(SECRETS)
    with Writer(world.first.stage(volume, SECRETS)) as writer:
        writer.progress(20)
    for here in (world.first, second, world.first):
        assert not writer.lost(here.stage(volume, SECRETS))
        here.unstage(volume)


def test_readers_on_both_nodes_and_no_writer(world: World, second: Machine) -> None:
    volume = world.create(SECRETS)
    first = world.first
    content = os.urandom(1 << 20)
    target = first.stage(volume, SECRETS)
    (target / "file").write_bytes(content)
    first.unstage(volume)

    for here in (first, second):
        target = here.stage(volume, SECRETS, reader())
        assert (target / "file").read_bytes() == content
        with pytest.raises(OSError, match="Read-only file system"):
            (target / "another").write_bytes(b"x")
    first.unstage(volume)
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        first.client.stage(volume, first.staging(volume), SECRETS)
    assert "node-b" in refusal[0].message
    refuse_delete(world, volume)
    assert (second.target(volume) / "file").read_bytes() == content
    second.unstage(volume)
    first.stage(volume, SECRETS)
    first.unstage(volume)


def test_a_reader_is_refused_while_another_node_writes(
    world: World, second: Machine
) -> None:
    volume = world.create(SECRETS)
    with Writer(world.first.stage(volume, SECRETS)) as writer:
        writer.progress()
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
            second.client.stage(volume, second.staging(volume), SECRETS, reader())
        writer.progress()
    assert "written by" in refusal[0].message or "node-a" in refusal[0].message
    world.first.unstage(volume)


def stage_when_ceph_has_noticed(second: Machine, volume: csi_pb2.Volume) -> Path:
    """Stage on the second node once the watch of the first one's worker is over."""
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        second.stage(volume, SECRETS)
    assert "node-a" in refusal[0].message
    eventually(
        "taking over",
        lambda: succeeds(
            lambda: second.stage(volume, SECRETS), grpc.StatusCode.FAILED_PRECONDITION
        ),
        60,
    )
    return second.target(volume)


def test_a_dead_node_keeps_others_out_until_ceph_notices(
    world: World, second: Machine
) -> None:
    """Its watch lasts 30 s at most; nobody can know earlier that it is dead."""
    volume = world.create(SECRETS)
    with Writer(world.first.stage(volume, SECRETS)) as writer:
        writer.progress(20)
        world.first.datapath.kill()
        writer.refused_within(30)
    try:
        assert not writer.lost(stage_when_ceph_has_noticed(second, volume))
        second.unstage(volume)
    finally:
        world.first.datapath.start()
    assert_clean(world.first, volume)


def test_a_frozen_node_is_fenced_before_another_takes_over(
    world: World, second: Machine
) -> None:
    volume = world.create(SECRETS)
    with Writer(world.first.stage(volume, SECRETS)) as writer:
        writer.progress(20)
        frozen = world.first.worker_pid(volume)
        os.kill(frozen, signal.SIGSTOP)
        try:
            target = stage_when_ceph_has_noticed(second, volume)
            before = dict(writer.acknowledged)
            (target / "of-the-second").write_bytes(b"here")
        finally:
            os.kill(frozen, signal.SIGCONT)
        assert writer.refused_within(30).errno in {errno.EIO, errno.EROFS}
    assert writer.acknowledged == before, "a fenced write was acknowledged"
    assert not writer.lost(target)
    second.unstage(volume)
    assert_clean(world.first, volume)
    target = world.first.stage(volume, SECRETS)
    assert not writer.lost(target)
    assert (target / "of-the-second").read_bytes() == b"here"
    world.first.unstage(volume)


def assert_clean(machine: Machine, volume: csi_pb2.Volume) -> None:
    machine.unstage(volume)
    assert not machine.target(volume).exists()
    assert not machine.alive(volume)
