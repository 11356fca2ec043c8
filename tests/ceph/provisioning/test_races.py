# SPDX-License-Identifier: Apache-2.0
"""Two controllers that create, delete and re-create one name at once.

Real processes with their own connections, in random interleavings.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from csi_driver.domain.errors import DriverError
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import MIB
from csi_driver.images.port import Pool
from csi_driver.images.records import find_record
from csi_driver.provisioning import sweeping
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.giving_up import give_up
from csi_driver.provisioning.sweeping import Sweep
from tests.ceph.provisioning.real import CephWorld

REPO = Path(__file__).parents[3]
SIZE = 4 * MIB
ROUNDS = 25
CONTROLLERS = 2


class Observer(threading.Thread):
    """Looks all the time whether two images of one name are ready at once."""

    def __init__(self, world: CephWorld) -> None:
        super().__init__(name="observer")
        self._world = world
        self._stop = threading.Event()
        self.doubles: list[tuple[str, str]] = []
        self.looks = 0

    def run(self) -> None:
        with self._world.pool() as pool:
            while not self._stop.is_set():
                self._look(pool)
                self.looks += 1

    def end(self) -> None:
        self._stop.set()
        self.join()

    def _look(self, pool: Pool) -> None:
        ready = self._ready(pool)
        # A state is never taken back, so whoever is ready before and after
        # another was, was it at the same time.
        again = self._ready(pool)
        both = sorted(ready & again)
        self.doubles += [(both[0], other) for other in both[1:]]

    def _ready(self, pool: Pool) -> set[str]:
        records = [self._record(pool, name) for name in self._world.images()]
        return {
            each.image_id
            for each in records
            if each and each.state is VolumeState.READY
        }

    @staticmethod
    def _record(pool: Pool, name: str) -> Record | None:
        try:
            image_id = pool.find_image(name)
            return None if image_id is None else find_record(pool, image_id)
        except DriverError:  # removed meanwhile
            return None


def start(world: CephWorld, seed: int) -> subprocess.Popen[str]:
    order = {
        "config": world.config_text,
        "name": "contested",
        "size": SIZE,
        "rounds": ROUNDS,
        "seed": seed,
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.ceph.provisioning.work"],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(order))
    child.stdin.close()
    child.stdin = None
    return child


def answers(children: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    rows = []
    for child in children:
        out, err = child.communicate(timeout=100)
        assert child.returncode == 0, err
        lines = [line for line in out.splitlines() if line.startswith("{")]
        rows += [json.loads(line) for line in lines]
    return sorted(rows, key=lambda row: row["ended"])


class Impatient(threading.Thread):
    """Takes everything for abandoned that it sees twice, with no time in between."""

    def __init__(self, world: CephWorld) -> None:
        super().__init__(name="impatient")
        self._world = world
        self._stop = threading.Event()
        self.given_up = 0

    def run(self) -> None:
        with (
            self._world.pool() as pool,
            mock.patch.object(sweeping, "give_up", self._counted),
        ):
            while not self._stop.wait(0.03):  # without a pause nobody gets done
                # One that stayed would fence those whom it sees at work twice.
                once = Sweep(0.0)
                for left, seconds in [*once.find(pool), *once.find(pool)]:
                    once.tidy(pool, left, seconds)

    def end(self) -> None:
        self._stop.set()
        self.join()

    def _counted(self, *arguments: Any) -> None:
        give_up(*arguments)
        self.given_up += 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_name_never_stands_for_two_volumes(world: CephWorld, seed: int) -> None:
    require_one(world, seed)


@pytest.mark.parametrize("seed", [4, 5])
def test_nor_while_all_that_is_begun_is_taken_for_abandoned(
    world: CephWorld, seed: int
) -> None:
    impatient = Impatient(world)
    impatient.start()
    try:
        require_one(world, seed)
    finally:
        impatient.end()
    assert impatient.given_up


def require_one(world: CephWorld, seed: int) -> None:
    """Let controllers contest a name, and look at what was answered."""
    observer = Observer(world)
    observer.start()
    try:
        children = [start(world, 100 * seed + n) for n in range(CONTROLLERS)]
        rows = answers(children)
    finally:
        observer.end()
    assert observer.looks > 5
    assert observer.doubles == []
    # Nothing unforeseen was answered, and both got something done.
    kinds = {row["error"].partition(":")[0] for row in rows}
    assert kinds <= {"", "PendingError", "ConflictError", "InUseError"}, rows
    created = {
        row["id"] for row in rows if row["what"] == "create" and not row["error"]
    }
    deleted = {
        row["id"] for row in rows if row["what"] == "delete" and not row["error"]
    }
    assert len(created) > 2
    live = {str(each.volume_id) for each in world.volumes.list("", 0).volumes}
    assert len(live) <= 1
    assert live <= created
    # Every answered volume is the live one or was deleted by an answered delete.
    assert created - live == created & deleted
    # No call was answered with a volume after its delete had been answered.
    for row in rows:
        if row["what"] == "create" and not row["error"]:
            assert not [
                other
                for other in rows
                if other["what"] == "delete"
                and not other["error"]
                and other["id"] == row["id"]
                and other["ended"] < row["began"]
            ]
    world.collect_all()
    assert len(world.images()) == len(live)
    for each in world.volumes.list("", 0).volumes:
        world.volumes.delete(each.volume_id)
    world.collect_all()
    assert world.content() == {}


def test_all_of_many_equal_calls_at_once_get_one_volume(world: CephWorld) -> None:
    found: list[str] = []
    failed: list[DriverError] = []

    def create() -> None:
        volumes = world.controller().volumes
        for _ in range(50):
            try:
                made = volumes.create(world.plaintext("shared", SIZE))
                found.append(str(made.volume_id))
                break
            except DriverError as error:
                failed.append(error)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6, failed
    assert len(set(found)) == 1
    assert {type(each).__name__ for each in failed} <= {"PendingError", "ConflictError"}
    assert len(world.images()) == 1


def test_many_collectors_at_once_leave_nothing(world: CephWorld) -> None:
    """Librbd would bring back the header of an image that two remove."""
    for number in range(16):
        world.volumes.delete(world.create(f"volume-{number}").volume_id)
    collectors = [world.controller().collector for _ in range(4)]
    failed: list[DriverError] = []

    def look(collector: Collector) -> None:
        try:
            collector.look(world.cluster, world.pool_name, world.namespace)
        except DriverError as error:
            failed.append(error)

    threads = [threading.Thread(target=look, args=(each,)) for each in collectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    world.collect_all()
    assert world.content() == {}
