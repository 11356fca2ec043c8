# SPDX-License-Identifier: Apache-2.0
"""Every process of the driver is upgraded and killed, between and in calls."""

from __future__ import annotations

import concurrent.futures
import errno
import time

import grpc
import pytest

from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.client import mount
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.client import succeeds
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.end_to_end.writer import Writer

SECRETS = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
HOW = pytest.mark.parametrize("kill", [False, True], ids=["upgraded", "killed"])
AGAIN = (
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,  # the stream broke off
)
"""After which a sidecar or kubelet repeats its call."""


@HOW
def test_staged_volumes_outlive_the_node_service(world: World, kill: bool) -> None:
    volume = world.create(SECRETS)
    first = world.first
    target = first.stage(volume, SECRETS)
    with Writer(target) as writer:
        writer.progress()
        worker = first.worker_pid(volume)
        for _ in range(2):
            first.service.restart(kill=kill)
            writer.progress()
        assert first.worker_pid(volume) == worker
        assert first.stage(volume, SECRETS) == target
        assert first.client.total_bytes(volume, target) > 40 * MIB
    assert writer.failure is None
    first.service.restart(kill=kill)
    first.unstage(volume)
    target = first.stage(volume, SECRETS)
    assert not writer.lost(target)
    first.unstage(volume)


@HOW
def test_a_lost_datapath_ends_in_errors_and_stages_anew(
    world: World, kill: bool
) -> None:
    volume = world.create(SECRETS)
    first = world.first
    target = first.stage(volume, SECRETS)
    with Writer(target) as writer:
        writer.progress(20)
        begin = time.monotonic()
        first.datapath.restart(kill=kill)
        failure = writer.refused_within(30)
        assert writer.failed_at - begin < 30
        assert failure.errno in {errno.EIO, errno.EROFS}, failure
    first.unstage(volume)
    begin = time.monotonic()
    target = first.stage(volume, SECRETS)
    assert time.monotonic() - begin < 30
    assert not writer.lost(target)
    with Writer(target) as again:
        again.progress()
    first.unstage(volume)


def test_publishing_on_a_lost_datapath_names_the_remedy(world: World) -> None:
    volume = world.create(SECRETS, capability=block())
    first = world.first
    staging = first.staging(volume)
    first.client.stage(volume, staging, SECRETS, block())
    first.datapath.restart(kill=True)
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        first.client.publish(volume, staging, first.target(volume), block())
    assert "delete the pod" in refusal[0].message
    first.client.unstage(volume, staging)


def test_calls_without_a_datapath_are_unavailable_at_once(world: World) -> None:
    volume = world.create(SECRETS)
    first = world.first
    first.datapath.kill()
    try:
        begin = time.monotonic()
        with refused(grpc.StatusCode.UNAVAILABLE) as refusal:
            first.client.stage(volume, first.staging(volume), SECRETS)
        assert time.monotonic() - begin < 10
        assert "datapath does not answer" in refusal[0].message
    finally:
        first.datapath.start()
    first.stage(volume, SECRETS)
    first.unstage(volume)


@HOW
def test_a_controller_replaced_while_it_creates(world: World, kill: bool) -> None:
    name = world.new_name()
    before = world.controller.ids()
    with concurrent.futures.ThreadPoolExecutor() as threads:
        creating = threads.submit(world.controller.create, name, SECRETS)
        time.sleep(0.1)
        world.controller_part.restart(kill=kill)
        error = creating.exception()
    if error is not None:
        assert isinstance(error, grpc.RpcError)
        assert error.code() in AGAIN

    def create() -> None:
        world.remember(world.controller.create(name, SECRETS))

    eventually("the repeated call", lambda: succeeds(create, *AGAIN), 40)
    assert len(world.controller.ids() - before) == 1


@HOW
@pytest.mark.parametrize("part", ["service", "datapath"])
def test_a_node_replaced_while_it_stages(world: World, part: str, kill: bool) -> None:
    first = world.first
    volume = world.create(SECRETS, size=304 * MIB, capability=mount("xfs"))
    with concurrent.futures.ThreadPoolExecutor() as threads:
        staging = threads.submit(
            first.client.stage, volume, first.staging(volume), SECRETS, mount("xfs")
        )
        time.sleep(0.25)
        getattr(first, part).restart(kill=kill)
        error = staging.exception()
    if error is not None:
        assert isinstance(error, grpc.RpcError)
        codes = (*AGAIN, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INTERNAL)
        assert error.code() in codes, error

    def stage() -> None:
        first.stage(volume, SECRETS, mount("xfs"))

    eventually("the repeated call", lambda: succeeds(stage, *AGAIN), 40)
    with Writer(first.target(volume)) as writer:
        writer.progress()
    first.unstage(volume)
