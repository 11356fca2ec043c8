# SPDX-License-Identifier: Apache-2.0
"""Creates that nobody goes on with are taken away, after a while and wholly.

The process that made them is dead, and the claim is gone, so nobody comes again.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import structlog
from structlog.testing import capture_logs

from csi_driver.domain.errors import InternalError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import VolumeState
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.records import change_record
from csi_driver.observability.logs import configure
from csi_driver.provisioning import collector as collecting
from csi_driver.provisioning import sweeping
from csi_driver.provisioning.collection_preview import BEGUN
from csi_driver.provisioning.collection_preview import preview_begun
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.sweeping import ABANDONED_SECONDS
from csi_driver.provisioning.sweeping import SWEEP_SECONDS
from csi_driver.provisioning.sweeping import Sweep
from csi_driver.provisioning.sweeping import begun
from csi_driver.provisioning.tally import Tallies
from csi_driver.testing.faults import FaultyConnector
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.halves import ImpatientWorld
from tests.unit.provisioning.halves import Prepare
from tests.unit.provisioning.halves import all_images
from tests.unit.provisioning.halves import calls_of_create
from tests.unit.provisioning.halves import half_made
from tests.unit.provisioning.halves import halves
from tests.unit.provisioning.halves import remove_volumes
from tests.unit.provisioning.halves import soon
from tests.unit.provisioning.halves import sweep
from tests.unit.provisioning.test_abandoned_races import clone_elsewhere
from tests.unit.provisioning.test_abandoned_races import clone_of_snapshot
from tests.unit.provisioning.test_abandoned_races import clone_of_volume
from tests.unit.provisioning.test_abandoned_races import plain
from tests.unit.provisioning.test_interrupted import FailingSteps
from tests.unit.provisioning.test_interrupted import Killed
from tests.unit.provisioning.test_interrupted import LastSteps
from tests.unit.provisioning.test_stillness import Clock
from tests.unit.provisioning.worlds import FakeWorld
from tests.unit.provisioning.worlds import World


def encrypted(world: FakeWorld) -> CreateRequest:
    return world.request("one", SIZE)


def encrypted_clone(world: FakeWorld) -> CreateRequest:
    source = volume(world, "source")
    return clone_request(world, source, "one", secrets={**OTHER, **SOURCE})


def first_claimed(prepare: Prepare) -> int:
    """Return a call at which a create dies that has claimed its name."""
    return calls_of_create(prepare).index("pool.swap_entries") + 2


def first_in_creating(prepare: Prepare) -> int:
    """Return a call at which a create dies with its image filed in `creating`."""
    return calls_of_create(prepare).index("image.acquire_lock") + 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("prepare", "step"),
    [
        (plain, 1),
        (encrypted, 3),
        (clone_of_volume, 1),
        (clone_of_snapshot, 1),
        (clone_elsewhere, 1),
        (encrypted_clone, 6),
    ],
)
def test_of_a_create_that_died_at_any_call_nothing_is_left(
    prepare: Prepare, step: int
) -> None:
    for at in range(1, len(calls_of_create(prepare)) + 1, step):
        world, _ = half_made(prepare, at)
        finished = "one" in world.names()
        sweep(world)
        assert not list(world.collector.pending())
        assert ("one" in world.names()) is finished
        assert len(all_images(world)) == len(world.names())
        for each in world.volumes.list("", 0).volumes:
            record = world.record(each.volume_id)
            assert record.children == ()
            assert not any(snapshot.internal for snapshot in record.snapshots)
            if record.origin:
                assert content_of(world, each.volume_id, OTHER) == {"the source's"}
        remove_volumes(world)
        world.close()


@pytest.mark.parametrize("prepare", [clone_of_volume, clone_of_snapshot])
def test_an_abandoned_clone_does_not_keep_its_deleted_source(prepare: Prepare) -> None:
    for at in halves(prepare):
        world, _ = half_made(prepare, at)
        if "one" in world.names():
            break
        for snapshot in world.volumes.list_snapshots("", 0).snapshots:
            soon(lambda: world.volumes.delete_snapshot(snapshot.snapshot_id))  # noqa: B023
        (source,) = world.volumes.list("", 0).volumes
        world.volumes.delete(source.volume_id)
        controller = world.controller()
        for _ in range(3):
            sweep(world, controller)
        assert world.content() == {}
        world.close()


def test_who_died_with_the_lock_is_fenced(world: FakeWorld) -> None:
    """Its watch may outlive it; so it has to do nothing for as long once more."""
    request = plain(world)
    at = first_in_creating(plain) + 1
    connector = FaultyConnector(world.connector, LastSteps(at))
    dead = world.controller(connector)
    with pytest.raises(Killed):
        dead.volumes.create(request)
    collector = world.controller(abandoned_after=0.0).collector
    for _ in range(2):
        collector.sweep("fake", "rbd", "")
    assert [left.record is not None for left in lefts(world)] == [True]
    collector.sweep("fake", "rbd", "")
    collector.look("fake", "rbd", "")
    assert world.content() == {}


def lefts(world: World) -> list[sweeping.Left]:
    with world.pool() as pool:
        return list(begun(pool))


def test_what_somebody_has_open_is_given_up_and_removed_later() -> None:
    world, _ = half_made(plain, first_in_creating(plain))
    (left,) = lefts(world)
    assert left.record is not None
    with world.pool() as pool, pool.open_raw(left.record.image_id):
        (found,) = lefts(world)
        assert preview_begun(pool, found) == BEGUN
        with world.pool() as other:
            assert "open by 127.0.0.1" in preview_begun(other, found)
        sweep(world)
        assert not lefts(world)
        assert world.images()
    world.collect_all()
    assert world.content() == {}


class Swept:
    """One place that is looked at every half minute, by a clock of its own."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world
        self._clock = Clock()
        self._sweep = Sweep(clock=self._clock)

    def passed(self, seconds: float, pause: float = SWEEP_SECONDS) -> list[float]:
        """Let time pass; return since when what is abandoned then was untouched."""
        until = self._clock.now + seconds
        while True:
            with self._world.pool() as pool:
                found = self._sweep.find(pool)
            if self._clock.now >= until:
                return [since for _, since in found]
            self._clock.now += pause


@pytest.mark.parametrize("died", [first_claimed, first_in_creating])
def test_nothing_is_abandoned_before_its_time(died: Callable[[Prepare], int]) -> None:
    world, _ = half_made(plain, died(plain))
    assert len(lefts(world)) == 1
    swept = Swept(world)
    assert swept.passed(ABANDONED_SECONDS - SWEEP_SECONDS) == []
    assert swept.passed(SWEEP_SECONDS) == [ABANDONED_SECONDS]


def test_whoever_goes_on_has_the_whole_time_again() -> None:
    world, _ = half_made(plain, first_in_creating(plain))
    swept = Swept(world)
    assert swept.passed(ABANDONED_SECONDS - SWEEP_SECONDS) == []
    (left,) = lefts(world)
    assert left.record is not None
    with world.pool() as pool:
        change_record(pool, left.record.image_id, lambda r: replace(r, ancestors=1))
    assert swept.passed(ABANDONED_SECONDS - SWEEP_SECONDS) == []
    assert swept.passed(SWEEP_SECONDS) == [ABANDONED_SECONDS]


def test_time_in_which_ceph_is_away_does_not_count() -> None:
    world, _ = half_made(plain, first_claimed(plain))
    swept = Swept(world)
    assert swept.passed(3 * SWEEP_SECONDS) == []
    assert swept.passed(ABANDONED_SECONDS, pause=ABANDONED_SECONDS) == []


def test_a_log_line_names_the_volume_and_how_long_nobody_went_on() -> None:
    world, _ = half_made(plain, first_in_creating(plain))
    with capture_logs() as logs:
        sweep(world)
    given_up = [each for each in logs if each["event"] == "abandoned create given up"]
    assert len(given_up) == 1
    assert given_up[0]["log_level"] == "info"
    assert given_up[0]["volume"] == "one"
    assert given_up[0]["state"] == "creating"
    assert given_up[0]["idle_seconds"] == 0


def test_the_log_line_goes_where_the_process_was_told_to_log() -> None:
    """Whatever was bound before logging was set up would write elsewhere."""
    world, _ = half_made(plain, first_in_creating(plain))
    stream = io.StringIO()
    configure(form="json", level="info", stream=stream)
    try:
        sweep(world)
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [each["event"] for each in lines] == [
        "abandoned create given up",
        "tombstone",
    ]


def test_what_the_collector_did_is_counted() -> None:
    world, _ = half_made(plain, first_in_creating(plain))
    steps = FailingSteps("image.acquire_lock", InternalError("injected"))
    failing = world.controller(FaultyConnector(world.connector, steps))
    sweep(world, failing)
    assert failing.collector.counted() == Tallies(failed=1)
    controller = world.controller()
    sweep(world, controller)
    assert controller.collector.counted() == Tallies(removed=1, given_up=1)
    sweep(world, controller)
    assert controller.collector.counted() == Tallies(removed=1, given_up=1)


def test_a_delete_that_died_and_is_not_repeated_is_finished(world: FakeWorld) -> None:
    made = world.create("one")
    record = world.record(made.volume_id)
    world.change(made.volume_id, state=VolumeState.DELETED)
    assert record.state is VolumeState.READY
    sweep(world)
    with world.pool() as pool:
        assert Directory(pool).find("one") is None
    assert world.content() == {}


def lose_image(world: FakeWorld, volume_id: VolumeId) -> None:
    world.remove_image(world.images()[0])


def lose_record(world: FakeWorld, volume_id: VolumeId) -> None:
    with world.store.lock:
        world._image(volume_id).metadata.clear()


def damage_record(world: FakeWorld, volume_id: VolumeId) -> None:
    with world.store.lock:
        for key in world._image(volume_id).metadata:
            world._image(volume_id).metadata[key] = "{}"


def keep(world: FakeWorld, volume_id: VolumeId) -> None:
    pass


@pytest.mark.parametrize("harm", [lose_image, lose_record, damage_record, keep])
def test_what_is_not_known_to_be_unfinished_is_left_to_a_person(
    harm: Callable[[FakeWorld, VolumeId], None],
) -> None:
    world = ImpatientWorld()
    made = world.create("one")
    harm(world, made.volume_id)
    before = world.content()
    controller = world.controller()
    for _ in range(3):
        sweep(world, controller)
    assert world.content() == before
    assert not lefts(world)


def test_finished_volumes_are_read_once(world: FakeWorld) -> None:
    for number in range(3):
        world.create(f"volume-{number}")
    plain_volume(world, "source")
    steps = LastSteps(0)
    collector = world.controller(FaultyConnector(world.connector, steps)).collector
    for count in (4, 4):
        collector.sweep("fake", "rbd", "")
        assert steps.names.count("pool.read_metadata") == count
    world.create("another")
    collector.sweep("fake", "rbd", "")
    assert steps.names.count("pool.read_metadata") == 5
    assert steps.names.count("connect") == 1


def test_one_that_cannot_be_given_up_does_not_keep_the_others() -> None:
    world, _ = half_made(plain, first_in_creating(plain))
    with world.pool() as pool:
        Directory(pool).claim(Entry("two", "csi-vol-two"))
    steps = FailingSteps("image.acquire_lock", InternalError("injected"))
    failing = world.controller(FaultyConnector(world.connector, steps))
    with capture_logs() as logs:
        sweep(world, failing)
    assert [each.entry.name for each in lefts(world)] == ["one"]
    (warning,) = [each for each in logs if each["log_level"] == "warning"]
    assert (warning["volume"], warning["error"]) == ("one", "injected")
    sweep(world)
    assert world.content() == {}


def test_the_collecting_thread_sweeps_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collecting, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(collecting, "INTERVAL", 0.01)
    world, _ = half_made(clone_elsewhere, first_in_creating(clone_elsewhere))
    collector = world.controller().collector
    collector.start()
    try:
        pause = threading.Event()
        for _ in range(500):
            if len(all_images(world)) == 1:
                break
            pause.wait(0.02)
        assert len(all_images(world)) == 1
        assert world.names() == ["source"]
    finally:
        collector.stop()


def test_what_becomes_of_it_is_said_and_nothing_done() -> None:
    for prepare in (plain, clone_of_volume):
        for at in halves(prepare):
            world, _ = half_made(prepare, at)
            before = world.content()
            with world.pool() as pool:
                said = [preview_begun(pool, each) for each in begun(pool)]
            assert said == ([] if "one" in world.names() else [BEGUN])
            assert world.content() == before
            world.close()
