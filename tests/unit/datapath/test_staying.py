# SPDX-License-Identifier: Apache-2.0
"""Workers that have to stay, because they carry out another client's flatten."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath.leftovers import end_leftover
from csi_driver.datapath.lives import WorkerMark
from csi_driver.datapath.staying import stays
from csi_driver.devices.device import ProcessMark
from csi_driver.domain.errors import PendingError

if TYPE_CHECKING:
    from tests.unit.datapath.conftest import MakeVolume
    from tests.unit.datapath.conftest import Node
from tests.unit.datapath.asking import worker_pid


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
