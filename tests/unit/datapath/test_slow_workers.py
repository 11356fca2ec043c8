# SPDX-License-Identifier: Apache-2.0
"""Workers that are slow, hang or are being asked: who waits, and who is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath import exports as exports_module
from tests.unit.datapath import fake_worker

if TYPE_CHECKING:
    from csi_driver.devices.device import Device
    from csi_driver.devices.device import ServerAlive
    from tests.unit.datapath.conftest import MakeVolume
    from tests.unit.datapath.conftest import Node
from tests.unit.datapath.asking import SIZE
from tests.unit.datapath.asking import worker_pid


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
