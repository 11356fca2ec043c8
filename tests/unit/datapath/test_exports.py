# SPDX-License-Identifier: Apache-2.0
"""The supervisor's table, with real worker processes that serve nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath import exports as exports_module
from csi_driver.datapath.leftovers import end_leftover
from csi_driver.datapath.lives import UNKNOWN
from csi_driver.datapath.lives import Lives
from csi_driver.datapath.lives import WorkerMark
from csi_driver.datapath.messages import Fenced
from csi_driver.datapath.state import SavedExport
from csi_driver.datapath.state import StateDirectory
from csi_driver.datapath.staying import stays
from csi_driver.datapath.workers import Worker
from csi_driver.datapath.workers import WorkerPool
from csi_driver.devices import process_space
from csi_driver.devices.device import ProcessMark
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from tests.unit.datapath import fake_worker

if TYPE_CHECKING:
    from csi_driver.devices.device import Device
    from csi_driver.devices.device import ServerAlive
    from tests.unit.datapath.conftest import MakeNode
    from tests.unit.datapath.conftest import MakeVolume
    from tests.unit.datapath.conftest import Node

SIZE = 1 << 20


def worker_pid(node: Node, make: MakeVolume) -> int:
    (status,) = node.exports.status(make().volume_id)
    assert status.worker_pid
    return status.worker_pid


def until_dead(node: Node) -> None:
    deadline = time.monotonic() + 5
    while any(status.alive for status in node.exports.status(None)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_open_status_close(node: Node, open_volume: MakeVolume) -> None:
    volume = open_volume()
    opened = node.exports.open(volume)
    assert opened.size.count == SIZE
    assert len(volume.key) == 0, "the request's secrets are wiped"
    (status,) = node.exports.status(None)
    assert status.alive
    assert status.counters is not None
    assert status.counters.flushes == 5
    saved = node.state.load(volume.volume_id)
    assert saved is not None
    assert saved.clients == (opened.client_address,)
    assert saved.device == opened.device

    node.exports.close(volume.volume_id)

    assert node.exports.status(None) == ()
    assert not Path(f"/proc/{status.worker_pid}").exists()
    assert node.devices.attached == {}
    assert node.state.load(volume.volume_id) is None
    node.exports.close(volume.volume_id)


def test_open_again_is_the_same_and_differently_is_refused(
    node: Node, open_volume: MakeVolume
) -> None:
    opened = node.exports.open(open_volume())
    assert node.exports.open(open_volume()) == opened
    with pytest.raises(PreconditionError, match="writable"):
        node.exports.open(open_volume(read_only=True))


def test_who_was_fenced_is_told_by_the_open_that_did_it(
    node: Node, open_volume: MakeVolume
) -> None:
    opened = node.exports.open(open_volume("fences"))
    assert opened.fenced == Fenced("node-b", "192.0.2.1:0/5")
    again = node.exports.open(open_volume("fences"))
    assert again == dataclasses.replace(opened, fenced=None)


@pytest.mark.parametrize(
    ("user", "error"),
    [("wrong-key", SecretError), ("dies-before-connecting", ExportLostError)],
)
def test_a_failed_open_leaves_no_device_and_no_worker(
    node: Node, open_volume: MakeVolume, user: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        node.exports.open(open_volume(user))
    assert node.exports.status(None) == ()
    assert node.devices.attached == {}
    node.exports.open(open_volume())


def test_a_clean_failure_leaves_no_state(node: Node, open_volume: MakeVolume) -> None:
    with pytest.raises(SecretError):
        node.exports.open(open_volume("wrong-key"))
    assert list(node.state.all()) == []


def test_a_failed_attach_ends_the_worker(node: Node, open_volume: MakeVolume) -> None:
    node.devices.fails = True
    with pytest.raises(InUseError, match="no device"):
        node.exports.open(open_volume())
    assert list(node.state.all()) == []
    assert node.exports.status(None) == ()


def test_a_worker_that_died_with_the_lock_is_the_next_ones_predecessor(
    node: Node, open_volume: MakeVolume
) -> None:
    with pytest.raises(ExportLostError, match="SIGKILL"):
        node.exports.open(open_volume("dies-with-the-lock"))
    (saved,) = node.state.all()
    (client,) = saved.clients
    with pytest.raises(InUseError, match=f"gone=True addresses={client}"):
        node.exports.open(open_volume("tells-predecessor"))
    (kept,) = node.state.all()
    assert kept.clients == (client,), "whoever comes next has to know it, too"


def test_without_state_nothing_is_proven(node: Node, open_volume: MakeVolume) -> None:
    with pytest.raises(InUseError, match=r"gone=False addresses=$"):
        node.exports.open(open_volume("tells-predecessor"))


def test_a_death_cuts_the_device_off_and_says_why(
    node: Node, open_volume: MakeVolume
) -> None:
    opened = node.exports.open(open_volume())
    os.kill(worker_pid(node, open_volume), signal.SIGKILL)
    until_dead(node)
    (status,) = node.exports.status(None)
    assert "SIGKILL" in status.reason
    deadline = time.monotonic() + 5
    while not node.devices.cut:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert node.devices.cut == [opened.device]
    with pytest.raises(ExportLostError, match="SIGKILL"):
        node.exports.grow(open_volume().volume_id)
    again = node.exports.open(open_volume())
    assert again.client_address != opened.client_address


def test_a_device_counts_as_served_until_its_worker_is_dead(
    node: Node, open_volume: MakeVolume
) -> None:
    node.exports.open(open_volume())
    node.exports.close(open_volume().volume_id)
    assert node.devices.detached_served == [True]
    node.exports.open(open_volume())
    os.kill(worker_pid(node, open_volume), signal.SIGKILL)
    until_dead(node)
    node.exports.close(open_volume().volume_id)
    assert node.devices.detached_served == [True, False]


def test_a_mounted_device_stops_the_close_before_anything_changed(
    node: Node, open_volume: MakeVolume
) -> None:
    node.exports.open(open_volume())
    node.devices.busy = True
    with pytest.raises(InUseError, match="mounted"):
        node.exports.close(open_volume().volume_id)
    (status,) = node.exports.status(None)
    assert status.alive


def test_a_hanging_worker_is_killed_and_released(
    node: Node, open_volume: MakeVolume
) -> None:
    volume_id = open_volume().volume_id
    node.devices.takes_socket = False
    node.exports.open(open_volume("hangs"))
    (saved,) = node.state.all()
    node.exports.close(volume_id)
    assert saved.worker is not None
    assert saved.worker.process.wait_gone(0)
    assert list(node.state.all()) == []


def test_no_question_about_a_slow_worker_kills_it(
    node: Node, open_volume: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports_module, "CONTROL_SECONDS", 0.1)
    node.exports.open(open_volume("is-slow"))
    (status,) = node.exports.status(None, 0.1)
    assert status.alive
    assert status.counters is None, "it takes longer than we wait"
    pid = worker_pid(node, open_volume)
    (status,) = node.exports.status(None)
    assert (status.alive, status.worker_pid) == (True, pid)
    deadline = time.monotonic() + 10
    monkeypatch.setattr(exports_module, "CONTROL_SECONDS", 5.0)
    while node.exports.status(None)[0].counters is None:
        assert time.monotonic() < deadline, "the late answer was not taken"


def test_growing_waits_for_ceph_and_kills_nobody(
    node: Node, open_volume: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = 2 * fake_worker.SLOW_SECONDS
    monkeypatch.setattr(exports_module, "CONTROL_SECONDS", 0.1)
    monkeypatch.setattr(node.devices, "grow", lambda *_: None)
    node.exports.open(open_volume("is-slow"))
    pid = worker_pid(node, open_volume)
    begin = time.monotonic()
    assert node.exports.grow(open_volume().volume_id).count == 2 * SIZE
    assert time.monotonic() - begin >= slow
    assert worker_pid(node, open_volume) == pid


@contextlib.contextmanager
def counting(node: Node) -> Iterator[None]:
    """Hold a conversation about the counters open for a while, as a scrape does."""
    (export,) = node.exports._table.values()
    thread = threading.Thread(target=node.exports.status, args=(None,))
    thread.start()
    deadline = time.monotonic() + 5
    while not export.worker._asking.locked():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    yield
    thread.join()


def test_a_worker_that_is_being_asked_is_not_taken_for_dead_when_opened_again(
    node: Node, open_volume: MakeVolume
) -> None:
    opened = node.exports.open(open_volume("is-slow"))
    pid = worker_pid(node, open_volume)
    with counting(node):
        assert node.exports.open(open_volume("is-slow")) == opened
    assert worker_pid(node, open_volume) == pid, "it was not opened anew"


def test_a_worker_that_is_being_asked_is_not_taken_for_dead_when_it_grows(
    node: Node, open_volume: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.exports.open(open_volume("is-slow"))
    told: list[bool] = []

    def grow(_device: Device, _size: int, server_alive: ServerAlive) -> None:
        with counting(node):
            told.append(server_alive())

    monkeypatch.setattr(node.devices, "grow", grow)
    assert node.exports.grow(open_volume().volume_id).count == 2 * SIZE
    assert told == [True]


def test_a_worker_that_never_answers_is_waited_for_within_a_bound(
    node: Node, open_volume: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.devices.takes_socket = False
    monkeypatch.setattr(exports_module, "CONTROL_SECONDS", 0.1)
    opened = node.exports.open(open_volume("hangs"))
    assert node.exports.status(None, 0.1)[0].counters is None
    again = node.exports.open(open_volume())
    assert again.client_address != opened.client_address


def test_a_close_does_not_wait_for_a_late_answer_for_ever(
    node: Node, open_volume: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.devices.takes_socket = False
    monkeypatch.setattr(exports_module, "CONTROL_SECONDS", 0.1)
    node.exports.open(open_volume("hangs"))
    assert node.exports.status(None)[0].counters is None
    begin = time.monotonic()
    node.exports.close(open_volume().volume_id)
    assert time.monotonic() - begin < 10
    assert node.exports.status(None) == ()


def test_growing_reaches_image_device_and_state(
    node: Node, open_volume: MakeVolume
) -> None:
    opened = node.exports.open(open_volume())
    assert node.exports.grow(open_volume().volume_id).count == 2 * SIZE
    assert node.devices.sizes[opened.device.identity] == 2 * SIZE
    (status,) = node.exports.status(None)
    assert status.size.count == 2 * SIZE
    node.exports.close(open_volume().volume_id)
    with pytest.raises(ExportLostError, match="not open"):
        node.exports.grow(open_volume().volume_id)


def test_a_second_call_on_the_volume_is_pending(
    node: Node, open_volume: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.exports.open(open_volume())
    entered, leave = threading.Event(), threading.Event()
    grow = node.devices.grow

    def slow(*arguments: object) -> None:
        entered.set()
        leave.wait(10)
        grow(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(node.devices, "grow", slow)
    thread = threading.Thread(target=node.exports.grow, args=(open_volume().volume_id,))
    thread.start()
    assert entered.wait(10)
    try:
        with pytest.raises(PendingError):
            node.exports.close(open_volume().volume_id)
        assert node.exports.status(None), "asking how it is never waits"
    finally:
        leave.set()
        thread.join()


def test_all_workers_together_are_waited_for_no_longer_than_asked(
    node: Node, open_volume: MakeVolume
) -> None:
    for number in range(4):
        volume_id = dataclasses.replace(open_volume().volume_id, image_id=f"a{number}")
        volume = open_volume("is-slow")
        node.exports.open(dataclasses.replace(volume, volume_id=volume_id))
    begin = time.monotonic()
    statuses = node.exports.status(None, 0.2)
    assert time.monotonic() - begin < 0.6
    assert [each.alive for each in statuses] == [True] * 4
    assert [each.counters for each in statuses] == [None] * 4
    assert node.exports.calls == 0


def test_a_successor_ends_what_a_dead_supervisor_left(
    make_node: MakeNode, open_volume: MakeVolume
) -> None:
    first = make_node()
    first.exports.open(open_volume())
    pid = worker_pid(first, open_volume)
    second = make_node()
    os.kill(pid, signal.SIGKILL)
    second.leftovers.recover()
    assert second.devices.attached == {}
    (status,) = second.exports.status(open_volume().volume_id)
    assert not status.alive
    assert "restarted" in status.reason
    second.exports.close(open_volume().volume_id)
    assert second.exports.status(None) == ()
    assert list(second.state.all()) == []


def test_only_the_very_process_counts_as_leftover(tmp_path: Path) -> None:
    mark = ProcessMark.of(os.getpid())
    assert mark is not None
    earlier = WorkerMark.of(ProcessMark(mark.pid, mark.started + 1), None)
    end_leftover(earlier, Lives(tmp_path), 0.0)
    assert ProcessMark.of(os.getpid()) == mark, "we are still here"


def test_shutting_down_closes_everything(
    make_node: MakeNode, open_volume: MakeVolume
) -> None:
    node = make_node()
    node.exports.open(open_volume())
    pid = worker_pid(node, open_volume)
    node.exports.shut_down(5.0)
    assert not Path(f"/proc/{pid}").exists()
    assert list(node.state.all()) == []
    with pytest.raises(PreconditionError, match="shutting down"):
        node.exports.open(open_volume())


def test_a_spare_is_kept_and_used(worker_command: tuple[str, ...]) -> None:
    pool = WorkerPool(worker_command)
    pool.refill()
    deadline = time.monotonic() + 10
    while pool._spare is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    spare = pool._spare
    taken = pool.take()
    assert taken is spare
    taken.dismiss()
    assert taken.wait(5)
    assert taken.end == "ended with status 0"
    pool.close()


def test_a_dead_spare_is_not_handed_out(worker_command: tuple[str, ...]) -> None:
    pool = WorkerPool(worker_command)
    dead = Worker(worker_command)
    dead.greet()
    dead.kill()
    pool._spare = dead
    taken = pool.take()
    assert taken.alive
    taken.dismiss()
    assert taken.wait(5)
    dead.dismiss()
    pool.close()


def test_state_is_read_back_and_damage_is_removed(
    tmp_path: Path, open_volume: MakeVolume
) -> None:
    state = StateDirectory(tmp_path / "state")
    volume_id = open_volume().volume_id
    saved = SavedExport(
        volume_id=volume_id,
        node_id="node-a",
        boot_id="boot",
        read_only=True,
        size=4096,
        worker=WorkerMark(ProcessMark(1, 2), 3, "life"),
        clients=("one", "two"),
    )
    state.store(saved)
    assert list(state.all()) == [saved]
    (path,) = (tmp_path / "state").glob("*.json")
    for damage in ("", "{}", "[]", '{"version": 2}', '{"version": 1}'):
        path.write_text(damage)
        assert state.load(volume_id) is None
        assert not path.exists()
    state.remove(volume_id)


def test_the_state_of_an_unknown_version_survives_a_start_and_refuses_the_volume(
    make_node: MakeNode, open_volume: MakeVolume, tmp_path: Path
) -> None:
    volume_id = open_volume().volume_id
    first = make_node()
    first.exports.open(open_volume())
    device = first.devices.attached[str(volume_id)]
    (path,) = (tmp_path / "state").glob("*.json")
    content = json.loads(path.read_text())
    first.exports.close(volume_id)
    foreign = json.dumps({"version": 3, "export": {**content["export"], "more": []}})
    path.write_text(foreign)
    first.devices.attached[str(volume_id)] = device

    second = make_node()
    second.leftovers.recover()
    for call in (
        lambda: second.exports.open(open_volume()),
        lambda: second.exports.close(volume_id),
    ):
        with pytest.raises(PreconditionError, match=r"version 3.*reads 1 to 2.*drain"):
            call()
    assert path.read_text() == foreign
    assert second.devices.attached == {str(volume_id): device}, "nothing was changed"


def test_the_state_of_before_containers_is_read(
    tmp_path: Path, open_volume: MakeVolume
) -> None:
    state = StateDirectory(tmp_path / "state")
    saved = SavedExport(
        volume_id=open_volume().volume_id,
        node_id="node-a",
        boot_id="boot",
        read_only=False,
        size=4096,
        worker=WorkerMark(ProcessMark(5, 6), process_space.INITIAL, UNKNOWN),
        clients=("one",),
    )
    state.store(saved)
    (path,) = (tmp_path / "state").glob("*.json")
    content = json.loads(path.read_text())
    content["version"] = 1
    content["export"]["worker"] = {"pid": 5, "started": 6}
    path.write_text(json.dumps(content))
    assert state.load(saved.volume_id) == saved
    assert list(state.all()) == [saved]


def test_a_worker_that_has_to_stay_is_not_ended(
    node: Node, open_volume: MakeVolume
) -> None:
    volume = open_volume("stays")
    opened = node.exports.open(volume)
    with pytest.raises(PendingError, match="somebody else"):
        node.exports.close(volume.volume_id)
    assert node.devices.attached == {}
    node.devices.attached["another volume"] = opened.device  # the number is reused
    (status,) = node.exports.status(volume.volume_id)
    assert not status.alive
    assert status.device is None
    assert status.reason == "it is being closed"
    with pytest.raises(PendingError, match="somebody else"):
        node.exports.open(open_volume("stays"))
    node.exports.close(volume.volume_id)
    assert node.exports.status(volume.volume_id) == ()
    assert node.state.load(volume.volume_id) is None
    assert node.devices.attached == {"another volume": opened.device}


def test_the_end_of_the_datapath_waits_for_a_worker_that_has_to_stay(
    node: Node, open_volume: MakeVolume
) -> None:
    volume = open_volume("stays")
    node.exports.open(volume)
    (status,) = node.exports.status(volume.volume_id)
    node.exports.shut_down(10.0)
    assert not Path(f"/proc/{status.worker_pid}").exists()
    assert node.state.load(volume.volume_id) is None


def test_a_worker_that_would_be_killed_with_a_container_is_waited_for(
    node: Node, open_volume: MakeVolume
) -> None:
    volume = open_volume("stays")
    node.exports.open(volume)
    (status,) = node.exports.status(volume.volume_id)
    node.exports.shut_down(0.1, leave_behind=False)
    assert not Path(f"/proc/{status.worker_pid}").exists()
    assert node.state.load(volume.volume_id) is None, "it was closed in order"


def test_a_leftover_that_has_to_stay_is_not_killed(
    node: Node, open_volume: MakeVolume
) -> None:
    node.exports.open(open_volume("stays"))
    pid = worker_pid(node, open_volume)
    mark = ProcessMark.of(pid)
    assert mark is not None
    with pytest.raises(PendingError, match="another client"):
        end_leftover(WorkerMark.of(mark, None), node.state.lives, 0.1)
    assert stays(pid)


def test_flattening_needs_an_open_volume(node: Node, open_volume: MakeVolume) -> None:
    volume = open_volume()
    with pytest.raises(ExportLostError):
        node.exports.flatten(volume.volume_id)
    node.exports.open(volume)
    node.exports.flatten(volume.volume_id)
