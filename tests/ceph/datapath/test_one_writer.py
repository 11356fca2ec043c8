# SPDX-License-Identifier: Apache-2.0
"""Two nodes and one volume: who is refused, and in which words."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.exports import ExportEntry

if TYPE_CHECKING:
    from tests.ceph.datapath.conftest import StartDatapath
    from tests.ceph.datapath.running import Volume


def test_a_second_writer_is_refused_with_the_holders_name(
    start_datapath: StartDatapath, volume: Volume
) -> None:
    here, there = start_datapath(), start_datapath()
    opened = here.client.open(volume.request(node_id="node-a"))
    with pytest.raises(InUseError, match="'node-a'") as refusal:
        there.client.open(volume.request(node_id="node-b"))
    assert opened.client_address in str(refusal.value)
    assert there.state_files == []
    here.client.close(volume.volume_id)
    there.client.open(volume.request(node_id="node-b"))


def test_another_datapath_of_the_same_node_is_no_proof_of_death(
    start_datapath: StartDatapath, volume: Volume
) -> None:
    here, there = start_datapath(), start_datapath()
    opened = here.client.open(volume.request())
    with pytest.raises(InUseError, match="not proven"):
        there.client.open(volume.request())
    assert volume.lock_owner() == opened.client_address


def test_a_reader_is_refused_while_somebody_writes(
    start_datapath: StartDatapath, volume: Volume
) -> None:
    here, there = start_datapath(), start_datapath()
    here.client.open(volume.request(node_id="node-a"))
    with pytest.raises(InUseError, match="'node-a'"):
        there.client.open(volume.request(node_id="node-b", read_only=True))
    (entry,) = volume.record().exports
    assert entry.node_id == "node-a"


def test_a_writer_is_refused_while_somebody_reads(
    start_datapath: StartDatapath, volume: Volume
) -> None:
    here, there = start_datapath(), start_datapath()
    here.client.open(volume.request(node_id="node-a", read_only=True))
    with pytest.raises(PreconditionError, match="'node-a'"):
        there.client.open(volume.request(node_id="node-b"))
    assert volume.lock_owner() is None


def test_readers_do_not_refuse_each_other(
    start_datapath: StartDatapath, volume: Volume
) -> None:
    here, there = start_datapath(), start_datapath()
    here.client.open(volume.request(node_id="node-a", read_only=True))
    there.client.open(volume.request(node_id="node-b", read_only=True))
    assert len(volume.record().exports) == 2
    assert here.disk(volume).read(0) == there.disk(volume).read(0)


@pytest.mark.parametrize("read_only", [True, False])
def test_the_entry_of_a_node_that_is_gone_does_not_refuse_anybody(
    start_datapath: StartDatapath, volume: Volume, read_only: bool
) -> None:
    gone = ExportEntry("node-gone", "boot", "127.0.0.1:0/1", read_only)
    volume.change(lambda record: record.with_export(gone))
    here = start_datapath()
    here.client.open(volume.request(node_id="node-a", read_only=not read_only))
    (entry,) = volume.record().exports
    assert entry.node_id == "node-a"


@pytest.mark.timeout(120)
def test_a_node_that_died_gives_way_once_ceph_has_noticed(
    start_datapath: StartDatapath, volume: Volume
) -> None:
    """Ceph ends a dead client's watch after 30 s; until then nobody is sure."""
    here, there = start_datapath(), start_datapath()
    here.client.open(volume.request(node_id="node-a"))
    here.disk(volume).write(0, b"acknowledged".ljust(4096, b"."))
    worker = here.worker_pid(volume)
    here.process.send_signal(signal.SIGSTOP)  # or it would notice, and clean up
    os.kill(worker, signal.SIGKILL)
    here.kill()
    with pytest.raises(InUseError, match="'node-a'"):
        there.client.open(volume.request(node_id="node-b"))
    deadline = time.monotonic() + 60
    while True:
        try:
            there.client.open(volume.request(node_id="node-b"))
            break
        except InUseError:
            assert time.monotonic() < deadline
            time.sleep(1)
    assert there.disk(volume).read(0).startswith(b"acknowledged.")
    (entry,) = volume.record().exports
    assert entry.node_id == "node-b"
    start_datapath(here.directory)  # takes the dead one's device away
