# SPDX-License-Identifier: Apache-2.0
"""Workers and supervisors that die, and what is left: clean errors, all data."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import UnavailableError

if TYPE_CHECKING:
    from tests.ceph.datapath.conftest import Eventually
    from tests.ceph.datapath.conftest import StartDatapath
    from tests.ceph.datapath.running import Running
    from tests.ceph.datapath.running import Volume

BLOCK = 4096


def gone(pid: int) -> bool:
    """Tell whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {
            "Z",
            "X",
        }
    except (FileNotFoundError, ProcessLookupError):
        return True


def kill_worker(datapath: Running, volume: Volume, eventually: Eventually) -> None:
    os.kill(datapath.worker_pid(volume), signal.SIGKILL)

    def dead() -> bool:
        status = datapath.client.status(volume.volume_id)
        return status is not None and not status.alive

    eventually("the death is noticed", dead, 2)


def test_a_killed_worker_is_noticed_and_replaced(
    datapath: Running, volume: Volume, eventually: Eventually
) -> None:
    content = secrets.token_bytes(BLOCK)
    first = datapath.client.open(volume.request())
    datapath.disk(volume).write(0, content)

    kill_worker(datapath, volume, eventually)

    status = datapath.client.status(volume.volume_id)
    assert status is not None
    assert "SIGKILL" in status.reason
    assert "a worker died" in datapath.log
    with pytest.raises(ExportLostError):
        datapath.client.grow(volume.volume_id)
    assert volume.lock_owner() == first.client_address, "nobody fenced it yet"

    begin = time.monotonic()
    again = datapath.client.open(volume.request())
    assert time.monotonic() - begin < 3
    assert again.client_address != first.client_address
    assert datapath.disk(volume).read(0) == content
    datapath.disk(volume).write(0, content[::-1])
    (entry,) = volume.record().exports
    assert entry.client_address == again.client_address


def test_closing_after_a_death_frees_the_volume_for_other_nodes(
    start_datapath: StartDatapath, volume: Volume, eventually: Eventually
) -> None:
    datapath = start_datapath()
    datapath.client.open(volume.request())
    kill_worker(datapath, volume, eventually)

    datapath.client.close(volume.volume_id)

    assert datapath.client.status(volume.volume_id) is None
    assert volume.lock_owner() is None
    assert volume.record().exports == ()
    assert datapath.state_files == []
    other = start_datapath()
    other.client.open(volume.request(node_id="node-b"))


def test_a_worker_that_does_not_answer_is_killed_at_close(
    datapath: Running, volume: Volume
) -> None:
    datapath.client.open(volume.request())
    worker = datapath.worker_pid(volume)
    os.kill(worker, signal.SIGSTOP)
    begin = time.monotonic()

    datapath.client.close(volume.volume_id)

    assert gone(worker)
    assert time.monotonic() - begin < 60
    assert volume.lock_owner() is None
    assert volume.record().exports == ()


def test_workers_end_with_their_supervisor(
    start_datapath: StartDatapath, volume: Volume, eventually: Eventually
) -> None:
    datapath = start_datapath()
    content = secrets.token_bytes(BLOCK)
    datapath.client.open(volume.request())
    datapath.disk(volume).write(BLOCK, content)
    worker = datapath.worker_pid(volume)

    datapath.kill()

    eventually("the worker ends", lambda: gone(worker), 5)
    assert volume.lock_owner() is None, "it closed its image first"
    assert volume.record().exports == ()
    with pytest.raises(UnavailableError):
        datapath.client.ping()

    successor = start_datapath(datapath.directory)
    status = successor.client.status(volume.volume_id)
    assert status is not None
    assert not status.alive
    successor.client.open(volume.request())
    assert successor.disk(volume).read(BLOCK) == content
    successor.client.close(volume.volume_id)
    assert successor.state_files == []


def test_supervisor_and_worker_killed_at_once(
    start_datapath: StartDatapath, volume: Volume
) -> None:
    datapath = start_datapath()
    content = secrets.token_bytes(BLOCK)
    datapath.client.open(volume.request())
    datapath.disk(volume).write(0, content)
    os.kill(datapath.worker_pid(volume), signal.SIGKILL)
    datapath.kill()
    assert volume.lock_owner() is not None

    successor = start_datapath(datapath.directory)
    successor.client.open(volume.request())
    assert successor.disk(volume).read(0) == content


def test_the_end_closes_every_volume(
    start_datapath: StartDatapath, volume: Volume
) -> None:
    datapath = start_datapath()
    datapath.client.open(volume.request())
    worker = datapath.worker_pid(volume)
    datapath.process.send_signal(signal.SIGTERM)
    assert datapath.process.wait(30) == 0
    assert gone(worker)
    assert volume.lock_owner() is None
    assert volume.record().exports == ()
    assert datapath.state_files == []
    assert "Traceback" not in datapath.log


def test_a_fenced_worker_fails_its_io_and_says_so(
    datapath: Running, volume: Volume, eventually: Eventually
) -> None:
    datapath.client.open(volume.request())
    disk = datapath.disk(volume)
    disk.write(0, bytes(BLOCK))
    with volume.pool.open_raw(volume.volume_id.image_id) as raw:
        owner = raw.lock_owner()
        assert owner is not None
        raw.break_lock(owner)
    with pytest.raises(OSError, match="rror"):
        disk.write(0, bytes(BLOCK))

    def fenced() -> bool:
        status = datapath.client.status(volume.volume_id)
        return status is not None and "fenced" in status.reason and not status.alive

    eventually("the status tells it", fenced, 2)
    assert "this Ceph client was fenced" in datapath.log
    datapath.client.close(volume.volume_id)
    assert volume.record().exports == ()
    datapath.client.open(volume.request())


def test_a_fenced_export_is_replaced_by_opening_again(
    datapath: Running, volume: Volume
) -> None:
    first = datapath.client.open(volume.request())
    with volume.pool.open_raw(volume.volume_id.image_id) as raw:
        owner = raw.lock_owner()
        assert owner is not None
        raw.break_lock(owner)
    with pytest.raises(OSError, match="rror"):
        datapath.disk(volume).write(0, bytes(BLOCK))
    again = datapath.client.open(volume.request())
    assert again.client_address != first.client_address
    datapath.disk(volume).write(0, bytes(BLOCK))


def test_whoever_has_the_device_open_gets_errors_and_no_hang(
    datapath: Running, volume: Volume, eventually: Eventually
) -> None:
    opened = datapath.client.open(volume.request())
    held = os.open(opened.device.path, os.O_RDONLY)
    try:
        kill_worker(datapath, volume, eventually)
        begin = time.monotonic()
        with pytest.raises(OSError, match="rror"):
            # Behind what the kernel read ahead when the device appeared.
            os.pread(held, BLOCK, 32 << 20)
        assert time.monotonic() - begin < 10
    finally:
        os.close(held)
    datapath.client.open(volume.request())
    datapath.disk(volume).write(0, bytes(BLOCK))


def test_the_end_does_not_wait_for_users_of_a_device(
    start_datapath: StartDatapath, volume: Volume
) -> None:
    datapath = start_datapath()
    opened = datapath.client.open(volume.request())
    worker = datapath.worker_pid(volume)
    held = os.open(opened.device.path, os.O_RDONLY)
    try:
        datapath.process.send_signal(signal.SIGTERM)
        assert datapath.process.wait(60) == 0
    finally:
        os.close(held)
    assert gone(worker)
    assert volume.lock_owner() is None
    assert volume.record().exports == ()
    successor = start_datapath(datapath.directory)
    successor.client.open(volume.request())
