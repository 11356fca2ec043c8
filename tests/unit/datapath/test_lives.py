# SPDX-License-Identifier: Apache-2.0
"""What is remembered of workers, when ids no longer mean what they meant."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath import leftovers as leftovers_module
from csi_driver.datapath import lives as lives_module
from csi_driver.datapath.leftovers import end_leftover
from csi_driver.datapath.lives import UNKNOWN
from csi_driver.datapath.lives import Lives
from csi_driver.datapath.lives import WorkerMark
from csi_driver.devices.device import ProcessMark
from csi_driver.devices.process_space import pid_namespace
from csi_driver.domain.errors import PendingError

if TYPE_CHECKING:
    from tests.unit.datapath.conftest import MakeNode
    from tests.unit.datapath.conftest import MakeVolume

ELSEWHERE = 7
"""The number of a PID namespace that is not this one."""


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    return Lives(tmp_path / "lives")


def sleeper(*descriptors: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    return subprocess.Popen(words, pass_fds=descriptors)


def test_a_life_lasts_as_long_as_the_last_of_its_processes(lives: Lives) -> None:
    life = lives.begin()
    children = [sleeper(life.descriptor) for _ in range(2)]
    life.close()
    for child in children:
        assert not lives.ended(life.name)
        child.kill()
        child.wait()
    assert lives.ended(life.name)


def test_who_does_not_inherit_it_is_not_of_it(lives: Lives) -> None:
    life = lives.begin()
    stranger = sleeper()
    life.close()
    assert lives.ended(life.name)
    stranger.kill()
    stranger.wait()


def test_ended_lives_are_forgotten_and_stay_ended(lives: Lives, tmp_path: Path) -> None:
    first = lives.begin()
    second = lives.begin()
    assert not lives.ended(first.name)
    first.close()
    third = lives.begin()
    found = {path.name for path in (tmp_path / "lives").iterdir()}
    assert found == {second.name, third.name}
    assert lives.ended(first.name)
    assert not lives.ended(UNKNOWN)
    second.close()
    third.close()


def moved(mark: WorkerMark) -> WorkerMark:
    """Return the mark of the same worker as of another container."""
    return WorkerMark(mark.process, ELSEWHERE, mark.life)


def test_a_worker_of_another_container_is_not_taken_for_gone(lives: Lives) -> None:
    life = lives.begin()
    worker = sleeper(life.descriptor)
    process = ProcessMark.of(worker.pid)
    assert process is not None
    # In here its id is nobody's, or somebody else's.
    mark = WorkerMark(ProcessMark(2**22 - 1, process.started), ELSEWHERE, life.name)
    life.close()
    with pytest.raises(PendingError, match="another PID namespace"):
        end_leftover(mark, lives, 0.1)
    worker.kill()
    worker.wait()
    end_leftover(mark, lives, 0.1)


def test_an_id_that_another_process_has_here_harms_nobody(lives: Lives) -> None:
    life = lives.begin()
    life.close()
    bystander = sleeper()
    process = ProcessMark.of(bystander.pid)
    assert process is not None
    end_leftover(WorkerMark(process, ELSEWHERE, life.name), lives, 0.0)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_an_id_that_a_thread_has_here_is_of_a_process_that_is_gone(
    lives: Lives,
) -> None:
    """Ids begin at 1 again in each container, and threads take them, too."""
    ready, leave = threading.Event(), threading.Event()
    ids: list[int] = []

    def run() -> None:
        ids.append(threading.get_native_id())
        ready.set()
        leave.wait(20)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(10)
        mark = ProcessMark(ids[0], 1)
        assert mark.wait_gone(0)
        end_leftover(WorkerMark(mark, pid_namespace(), UNKNOWN), lives, 0.0)
    finally:
        leave.set()
        thread.join()


def test_a_datapath_in_a_new_container_waits_for_the_old_one_s_workers(
    make_node: MakeNode, open_volume: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers_module, "ORPHAN_PATIENCE", 0.1)
    first = make_node()
    volume_id = open_volume().volume_id
    first.exports.open(open_volume())
    monkeypatch.setattr(lives_module, "pid_namespace", lambda: ELSEWHERE)
    second = make_node()
    with pytest.raises(PendingError, match="end that container"):
        second.leftovers.predecessor(second.state.load(volume_id))
    assert first.exports.status(volume_id)[0].alive


def test_marks_are_of_this_namespace(lives: Lives) -> None:
    process = ProcessMark.of(os.getpid())
    assert process is not None
    mark = WorkerMark.of(process, None)
    assert mark.visible
    assert not moved(mark).visible
    assert mark.namespace == Path("/proc/self/ns/pid").stat().st_ino
    begin = time.monotonic()
    assert not lives.ended(mark.life)
    assert time.monotonic() - begin < 1
