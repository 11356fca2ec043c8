# SPDX-License-Identifier: Apache-2.0
"""A controller killed by SIGKILL around each of its calls to Ceph.

After each kill another controller repeats the call; then every volume loads,
has its size, and nothing but it is left, and nothing at all once it is
deleted and collected.  The killed ones' locks are broken after the patience
of the world, their watches end by themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.testing.crash import Crash
from csi_driver.testing.crash import crash_at
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import When
from tests.ceph.provisioning.real import CephWorld
from tests.unit.provisioning.worlds import loaded
from tests.unit.provisioning.worlds import until_free

WORK = Path(__file__).with_name("work.py")
CONNECTOR = f"{WORK}:quick_connector"
SIZE = 4 * MIB
AT_ONCE = 3
MOST = 60

type Case = tuple[Crash | None, dict[str, Any]]


def killed(work: str, arguments: dict[str, Any], fault: Fault) -> Crash | None:
    return crash_at(f"{WORK}:{work}", arguments, fault, connector=CONNECTOR)


def kill_around_every_step(
    world: CephWorld,
    work: str,
    subject: Callable[[str], dict[str, Any]],
) -> list[Case]:
    """Kill fresh work before each step, and after the last ones.

    Returns each crash with the subject of its work; without a crash the work
    got through before its step.  Death after one step and
    before the next differ in nothing but what other threads do meanwhile;
    after the last step it is a case of its own.
    """
    found: list[Case] = []
    last = 0

    def run(step: int, when: When) -> Case:
        given = subject(f"{work}-{step}-{when.value}")
        given["config"] = world.config_text
        return killed(work, given, Fault(step, when)), given

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for first in itertools.count(1, AT_ONCE):
            assert first < MOST, f"{work} takes more than {MOST} steps"
            steps = range(first, first + AT_ONCE)
            found += threads.map(lambda n: run(n, When.BEFORE), steps)
            last = max((crash.step for crash, _ in found if crash), default=0)
            if any(crash is None for crash, _ in found):
                break
        found += threads.map(lambda n: run(n, When.AFTER), (last, last - 1))
    assert last > 3
    return found


def names_of(cases: list[Case]) -> set[str]:
    return {crash.name for crash, _ in cases if crash}


def require_whole(world: CephWorld, volume_id: VolumeId) -> None:
    """Check that a volume has its size and, if encrypted, takes its key."""
    record = world.record(volume_id)
    assert record.require_ready().actual == EffectiveSize(SIZE)
    with world.pool() as pool:
        with pool.open_raw(volume_id.image_id, read_only=True) as raw:
            assert raw.raw_size() == record.raw_size
            assert raw.striping() == record.parameters.striping
            kind = header_kind(raw.read_header(8))
        assert kind is HeaderKind.LUKS2
        with loaded(pool, record) as image:
            assert image.size() == EffectiveSize(SIZE)
            image.write(SIZE - BLOCK_SIZE, b"x" * BLOCK_SIZE)
            assert image.read(SIZE - BLOCK_SIZE, BLOCK_SIZE) == b"x" * BLOCK_SIZE


def finish_creates(world: CephWorld, cases: list[Case]) -> None:
    """Repeat interrupted creates until they succeed, then take all away."""

    def again(case: Case) -> VolumeId:
        request = world.request(case[1]["name"], SIZE)
        made = until_free(lambda: world.volumes.create(request))
        require_whole(world, made.volume_id)
        assert world.volumes.create(request) == made
        return made.volume_id

    with ThreadPoolExecutor(AT_ONCE) as threads:
        ids = list(threads.map(again, cases))
    assert world.names() == sorted(given["name"] for _, given in cases)
    world.collect_all()
    # Half-made images are gone, one image is left for each name.
    assert len(world.images()) == len(cases)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda v: until_free(lambda: world.volumes.delete(v)), ids))
    assert world.names() == []
    world.collect_all()
    assert world.content() == {}


@pytest.mark.timeout(240)
def test_create_killed_around_every_call(world: CephWorld) -> None:
    cases = kill_around_every_step(
        world,
        "create",
        lambda name: {"name": name, "size": SIZE},
    )
    assert {
        "pool.create_image",
        "image.acquire_lock",
        "image.write_header",
        "pool.swap_entries",
    } <= names_of(cases)
    finish_creates(world, cases)


def volumes_of(world: CephWorld) -> Callable[[str], dict[str, Any]]:
    def make(name: str) -> dict[str, Any]:
        made = world.volumes.create(world.request(name, SIZE))
        return {"name": name, "id": str(made.volume_id)}

    return make


@pytest.mark.timeout(240)
def test_delete_killed_around_every_call(world: CephWorld) -> None:
    cases = kill_around_every_step(world, "delete", volumes_of(world))
    assert {"image.acquire_lock", "pool.swap_metadata"} <= names_of(cases)

    def again(case: Case) -> None:
        volume_id = VolumeId.parse(case[1]["id"])
        until_free(lambda: world.volumes.delete(volume_id))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(again, cases))
    assert world.names() == []
    world.collect_all()
    assert world.content() == {}


@pytest.mark.timeout(240)
def test_collecting_killed_around_every_call(world: CephWorld) -> None:
    """One namespace for each kill, since a look goes through all tombstones."""

    def tombstone(_: str) -> dict[str, Any]:
        place = CephWorld()
        place.begin()
        places.append(place)
        made = place.volumes.create(place.request("one", SIZE))
        place.volumes.delete(made.volume_id)
        return {"place": len(places) - 1, "at": place.config_text}

    places: list[CephWorld] = []
    try:
        kill_collectors(tombstone)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(lambda place: place.collect_all(), places))
        for place in places:
            assert place.content() == {}
    finally:
        for place in places:
            place.end()


def kill_collectors(subject: Callable[[str], dict[str, Any]]) -> None:
    names: set[str] = set()

    def run(step: int) -> Crash | None:
        given = subject("")
        return killed("collect", {"config": given["at"]}, Fault(step))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for first in itertools.count(1, AT_ONCE):
            assert first < MOST
            crashes = list(threads.map(run, range(first, first + AT_ONCE)))
            names |= {crash.name for crash in crashes if crash}
            if None in crashes:
                break
    assert {"image.erase_header", "pool.remove_image", "pool.swap_entries"} <= names


DELAYS = [n / 1000 for n in (0.1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20, 25)]


@pytest.mark.timeout(240)
def test_create_killed_while_librbd_makes_the_image(world: CephWorld) -> None:
    def run(delay: float) -> Case:
        name = f"cut-{delay * 10000:.0f}"
        given = {"name": name, "size": SIZE, "delay": delay}
        given["config"] = world.config_text
        return killed("cut_create", given, Fault(0)), given

    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(run, DELAYS))
    assert sum(crash is not None for crash, _ in found) > len(DELAYS) // 2
    finish_creates(world, found)


@pytest.mark.timeout(240)
def test_collecting_killed_while_librbd_removes_the_image() -> None:
    places: list[CephWorld] = []

    def run(delay: float) -> Crash | None:
        place = CephWorld()
        place.begin()
        places.append(place)
        made = place.volumes.create(place.request("one", 64 * MIB))
        with place.pool() as pool, loaded(pool, place.record(made.volume_id)) as image:
            for offset in range(0, 64 * MIB, 4 * MIB):
                image.write(offset, b"x" * BLOCK_SIZE)
        place.volumes.delete(made.volume_id)
        given = {"config": place.config_text, "delay": delay * 2}
        return killed("cut_collect", given, Fault(0))

    try:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            crashes = list(threads.map(run, DELAYS))
            assert sum(crash is not None for crash in crashes) > len(DELAYS) // 2
            list(threads.map(lambda place: place.collect_all(), places))
        for place in places:
            assert place.content() == {}
    finally:
        for place in places:
            place.end()
