# SPDX-License-Identifier: Apache-2.0
"""The supervisor's table, with real worker processes that serve nothing."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath.messages import Fenced
from csi_driver.datapath.workers import Worker
from csi_driver.datapath.workers import WorkerPool
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError

if TYPE_CHECKING:
    from tests.unit.datapath.conftest import MakeNode
    from tests.unit.datapath.conftest import MakeVolume
    from tests.unit.datapath.conftest import Node
from tests.unit.datapath.asking import SIZE
from tests.unit.datapath.asking import until_dead
from tests.unit.datapath.asking import worker_pid


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


def test_flattening_needs_an_open_volume(node: Node, open_volume: MakeVolume) -> None:
    volume = open_volume()
    with pytest.raises(ExportLostError):
        node.exports.flatten(volume.volume_id)
    node.exports.open(volume)
    node.exports.flatten(volume.volume_id)
