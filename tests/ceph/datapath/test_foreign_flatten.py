# SPDX-License-Identifier: Apache-2.0
"""Somebody runs `rbd flatten` on a clone that is open."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.sizes import EffectiveSize
from tests.ceph.datapath.clones import Clone
from tests.ceph.datapath.clones import require_disk
from tests.ceph.datapath.flattening import NEVER

if TYPE_CHECKING:
    from tests.ceph.datapath.conftest import Eventually
    from tests.ceph.datapath.conftest import StartDatapath
    from tests.ceph.datapath.running import Running
from tests.ceph.datapath.flattening import LONG
from tests.ceph.datapath.flattening import MakeClone
from tests.ceph.datapath.flattening import flatten_status
from tests.ceph.datapath.flattening import state


def raw_flatten(clone: Clone) -> subprocess.Popen[bytes]:
    words = ["rbd", "flatten", "--no-progress", f"rbd/{clone.volume.name}"]
    return subprocess.Popen(words)


def foreign_begun(running: Running, clone: Clone) -> bool:
    status = flatten_status(running, clone)
    assert status.state is not FlattenState.DONE, "too fast for this test"
    return status.state is FlattenState.FOREIGN and status.done > 10


def test_a_foreign_flatten_is_carried_out_and_recorded(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(NEVER)
    datapath.client.open(clone.volume.request())
    assert raw_flatten(clone).wait() == 0
    eventually("done", lambda: state(datapath, clone) is FlattenState.DONE, 20)
    require_disk(datapath, clone)
    datapath.client.close(clone.volume.volume_id)
    clone.require_flat()


def test_a_close_waits_for_a_foreign_flatten(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(NEVER, size=LONG)
    volume_id = clone.volume.volume_id
    datapath.client.open(clone.volume.request())
    pid = datapath.worker_pid(clone.volume)
    command = raw_flatten(clone)
    eventually("begun", lambda: foreign_begun(datapath, clone), 20)
    with pytest.raises(PendingError, match="another client"):
        datapath.client.close(volume_id)
    with pytest.raises(PendingError, match="another client"):
        datapath.client.open(clone.volume.request())
    assert Path(f"/proc/{pid}").exists()
    eventually("closed", lambda: closes(datapath, clone), 30)
    assert command.wait() == 0
    clone.require_flat()
    datapath.client.open(clone.flat.request())
    require_disk(datapath, clone)


def closes(running: Running, clone: Clone) -> bool:
    try:
        running.client.close(clone.volume.volume_id)
    except PendingError:
        return False
    return True


def test_a_terminated_datapath_waits_for_a_foreign_flatten(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(NEVER, size=LONG)
    datapath.client.open(clone.volume.request())
    command = raw_flatten(clone)
    eventually("begun", lambda: foreign_begun(datapath, clone), 20)
    datapath.process.send_signal(signal.SIGTERM)
    datapath.process.wait(30)
    assert command.wait() == 0
    clone.require_flat()


def test_a_killed_datapath_leaves_a_worker_that_ends_a_foreign_flatten(
    make_clone: MakeClone, start_datapath: StartDatapath, eventually: Eventually
) -> None:
    clone = make_clone(NEVER, size=EffectiveSize(3 * LONG.count))
    first = start_datapath()
    first.client.open(clone.volume.request())
    command = raw_flatten(clone)
    eventually("begun", lambda: foreign_begun(first, clone), 20)
    first.kill()
    second = start_datapath(first.directory)
    # A quick machine has ended it before anybody asks; two keys are too many then.
    with contextlib.suppress(PendingError, HeaderError):
        second.client.open(clone.volume.request())
    assert command.wait() == 0
    assert clone.kind() is HeaderKind.LUKS2
    eventually("closed", lambda: closes(second, clone), 30)
    clone.require_flat()
