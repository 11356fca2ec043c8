# SPDX-License-Identifier: Apache-2.0
"""Ceph hangs, dies and comes back under the running services."""

from __future__ import annotations

import concurrent.futures
import time

import grpc
import pytest

from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.client import succeeds
from tests.ceph.end_to_end.daemons import Daemon
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.end_to_end.writer import Writer

SECRETS = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}

NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
BACK_SECONDS = 60.0
"""How soon everything has to work again by itself; a restarted monitor alone
takes some seconds until it serves, and clients try it again every few."""


@pytest.fixture(params=["hangs", "is dead"])
def monitor_trouble(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def works_again(world: World, name: str) -> bool:
    def create() -> None:
        world.remember(world.controller.create(name, SECRETS, timeout=30))

    return succeeds(create, *NO_ANSWER, grpc.StatusCode.ABORTED)


def test_calls_end_in_time_without_a_monitor_and_work_when_it_is_back(
    world: World, monitor_trouble: str
) -> None:
    volume = world.create(SECRETS)
    monitor = Daemon("mon")
    name = world.new_name()
    trouble = monitor.stopped() if monitor_trouble == "hangs" else monitor.dead()
    with trouble:
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor() as threads:
            first = threads.submit(world.controller.create, name, SECRETS, timeout=40.0)
            time.sleep(0.5)
            with refused(grpc.StatusCode.ABORTED) as second:
                world.controller.create(name, SECRETS)
            assert time.monotonic() - begin < 3
            with refused(*NO_ANSWER) as answer:
                first.result()
        assert time.monotonic() - begin < 30
        assert second[0].message
        assert answer[0].message
        begin = time.monotonic()
        with refused(*NO_ANSWER):
            world.controller.create(world.new_name(), SECRETS, timeout=3)
        assert time.monotonic() - begin < 3.5
        assert not world.first.alive(volume)
    eventually("creating", lambda: works_again(world, name), BACK_SECONDS)
    world.first.stage(volume, SECRETS)
    world.first.unstage(volume)


def test_a_stage_without_a_monitor(world: World) -> None:
    """It ends in time: without an answer, or staged by clients made before."""
    volume = world.create(SECRETS)
    first = world.first
    again = (*NO_ANSWER, grpc.StatusCode.ABORTED)

    def stage(seconds: float) -> None:
        staging = first.staging(volume)
        first.client.stage(volume, staging, SECRETS, timeout=seconds)

    with Daemon("mon").stopped():
        for seconds, bound in ((60, 40.0), (3, 3.5)):
            begin = time.monotonic()
            succeeds(lambda: stage(seconds), *again)  # noqa: B023
            assert time.monotonic() - begin < bound

    def staged() -> bool:
        return succeeds(lambda: first.stage(volume, SECRETS), *again)

    eventually("staging", staged, BACK_SECONDS)
    first.unstage(volume)


def test_a_disk_that_hangs_during_a_stage(world: World) -> None:
    volume = world.create(SECRETS, capability=block())
    first = world.first
    staging = first.staging(volume)
    with Daemon("osd").stopped():
        begin = time.monotonic()
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            first.client.stage(volume, staging, SECRETS, block(), timeout=4)
        assert time.monotonic() - begin < 4.5
        with refused(grpc.StatusCode.ABORTED):
            first.client.stage(volume, staging, SECRETS, block(), timeout=4)
        # Other calls that need no Ceph are answered meanwhile.
        assert first.control.list() == ()

    def staged() -> bool:
        return succeeds(
            lambda: first.client.stage(volume, staging, SECRETS, block()),
            grpc.StatusCode.ABORTED,
        )

    eventually("staging", staged, BACK_SECONDS)
    assert first.alive(volume)
    first.client.unstage(volume, staging)


def test_a_disk_that_hangs_during_io_fails_nothing(world: World) -> None:
    volume = world.create(SECRETS)
    target = world.first.stage(volume, SECRETS)
    osd = Daemon("osd")
    with Writer(target) as writer:
        writer.progress()
        with osd.stopped():
            time.sleep(8)
            written = len(writer.acknowledged)
            time.sleep(0.5)
            assert len(writer.acknowledged) == written, "an answer without a disk"
        writer.progress()
        assert writer.slowest > 5
    world.first.unstage(volume)
    target = world.first.stage(volume, SECRETS)
    assert writer.failure is None
    assert not writer.lost(target)
    world.first.unstage(volume)


def test_a_slow_disk_is_only_slow(world: World) -> None:
    volume = world.create(SECRETS)
    target = world.first.stage(volume, SECRETS)
    with Daemon("osd").slow(), Writer(target) as writer:
        writer.progress(3, 60)
        another = world.create(SECRETS, capability=block())
        world.first.stage(another, SECRETS, block())
        world.first.unstage(another)
    world.first.unstage(volume)
    target = world.first.stage(volume, SECRETS)
    assert writer.failure is None
    assert not writer.lost(target)


def test_a_monitor_that_dies_does_not_disturb_io(world: World) -> None:
    volume = world.create(SECRETS)
    target = world.first.stage(volume, SECRETS)
    with Writer(target) as writer:
        writer.progress()
        with Daemon("mon").dead():
            writer.progress(20)
        writer.progress(20)
    world.first.unstage(volume)
    target = world.first.stage(volume, SECRETS)
    assert not writer.lost(target)
    world.first.unstage(volume)
