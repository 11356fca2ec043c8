# SPDX-License-Identifier: Apache-2.0
"""What a datapath finds of the one before it: processes and files."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath.leftovers import end_leftover
from csi_driver.datapath.lives import UNKNOWN
from csi_driver.datapath.lives import Lives
from csi_driver.datapath.lives import WorkerMark
from csi_driver.datapath.state import SavedExport
from csi_driver.datapath.state import StateDirectory
from csi_driver.devices import process_space
from csi_driver.devices.device import ProcessMark
from csi_driver.domain.errors import PreconditionError

if TYPE_CHECKING:
    from tests.unit.datapath.conftest import MakeNode
    from tests.unit.datapath.conftest import MakeVolume
from tests.unit.datapath.asking import worker_pid


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
