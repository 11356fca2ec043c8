# SPDX-License-Identifier: Apache-2.0
"""Flattening an open clone: by policy, by request, and by other clients."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Protocol

import pytest

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.flattening import FlattenPolicy
from csi_driver.domain.flattening import FlattenWork
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.ceph import CephConnector
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.testing.lab_images import load_specs
from tests.ceph.datapath.clones import BLOCK
from tests.ceph.datapath.clones import Clone
from tests.ceph.datapath.clones import clone_of
from tests.ceph.datapath.clones import require_disk

if TYPE_CHECKING:
    from tests.ceph.datapath.conftest import Eventually
    from tests.ceph.datapath.conftest import MakeVolume
    from tests.ceph.datapath.conftest import Running
    from tests.ceph.datapath.conftest import StartDatapath

LONG = EffectiveSize(1024 * MIB)
"""Of a clone whose flatten takes about two seconds, one object at a time."""

SHORT = EffectiveSize(64 * MIB)
ALWAYS, NEVER = FlattenPolicy.ALWAYS, FlattenPolicy.NEVER


class MakeClone(Protocol):
    """Makes a clone of a parent of its own."""

    def __call__(
        self,
        policy: FlattenPolicy,
        *,
        mode: EncryptionMode = EncryptionMode.KEYRING,
        parent_mode: EncryptionMode | None = None,
        size: EffectiveSize = ...,
        recovered: bool = True,
        features: Sequence[str] = (),
    ) -> Clone: ...


@pytest.fixture
def make_clone(make_volume: MakeVolume) -> Iterator[MakeClone]:
    """Make clones; asked for before a datapath, so that it ends before them."""
    made: list[Clone] = []

    def make(
        policy: FlattenPolicy,
        *,
        mode: EncryptionMode = EncryptionMode.KEYRING,
        parent_mode: EncryptionMode | None = None,
        size: EffectiveSize = SHORT,
        recovered: bool = True,
        features: Sequence[str] = (),
    ) -> Clone:
        parent = make_volume(parent_mode or mode, size=size)
        made.append(
            clone_of(parent, policy, mode=mode, recovered=recovered, features=features)
        )
        return made[-1]

    yield make
    for clone in made:
        clone.remove()


def flatten_status(running: Running, clone: Clone) -> FlattenStatus:
    status = running.client.status(clone.volume.volume_id)
    assert status is not None
    if status.counters is None or status.counters.flatten is None:
        return FlattenStatus()
    return status.counters.flatten


def state(running: Running, clone: Clone) -> FlattenState:
    return flatten_status(running, clone).state


def copied_some(running: Running, clone: Clone) -> bool:
    status = flatten_status(running, clone)
    assert status.state is not FlattenState.DONE, "too fast for this test"
    return status.state is FlattenState.COPYING and status.done > 10


def test_a_clone_is_flattened_under_its_writers(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(ALWAYS, size=LONG)
    datapath.client.open(clone.volume.request())
    disk = datapath.disk(clone.volume)
    writes = 0
    while state(datapath, clone) is not FlattenState.DONE:
        offset = secrets.randbelow(LONG.count // BLOCK) * BLOCK
        clone.model[offset] = secrets.token_bytes(BLOCK)
        disk.write(offset, clone.model[offset])
        writes += 1
        assert writes < 5000
    assert writes > 10
    require_disk(datapath, clone)
    datapath.client.close(clone.volume.volume_id)
    clone.require_flat()
    ring = clone.volume.record().ring
    assert ring is not None
    assert [each.header_uuid for each in ring.entries] == list(
        clone.volume.record().layers
    )
    datapath.client.open(clone.flat.request())
    require_disk(datapath, clone)
    datapath.client.close(clone.volume.volume_id)


def test_a_snapshot_from_before_keeps_its_parent_and_its_keys(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(ALWAYS)
    number = clone.take_snapshot()
    datapath.client.open(clone.volume.request())
    eventually("done", lambda: state(datapath, clone) is FlattenState.DONE, 20)
    datapath.client.close(clone.volume.volume_id)
    clone.require_flat()
    clone.require_bytes(clone.volume.dek, *clone.volume.below, snapshot=number)
    ring = clone.volume.record().ring
    assert ring is not None
    assert len(ring.entries) == 2


def test_a_killed_worker_leaves_work_that_the_next_stage_ends(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(ALWAYS, size=LONG)
    datapath.client.open(clone.volume.request())
    eventually("some", lambda: copied_some(datapath, clone), 20)
    os.kill(datapath.worker_pid(clone.volume), signal.SIGKILL)
    assert clone.volume.record().flatten is not None
    datapath.client.open(clone.volume.request())
    eventually("done", lambda: state(datapath, clone) is FlattenState.DONE, 30)
    require_disk(datapath, clone)
    datapath.client.close(clone.volume.volume_id)
    clone.require_flat()


def test_a_close_cancels_it_and_is_not_held_up(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(ALWAYS, size=LONG)
    datapath.client.open(clone.volume.request())
    eventually("some", lambda: copied_some(datapath, clone), 20)
    work = clone.volume.record().flatten
    assert work is not None
    assert work.client_address == clone.volume.lock_owner()
    begin = time.monotonic()
    datapath.client.close(clone.volume.volume_id)
    assert time.monotonic() - begin < 2
    assert clone.has_parent()
    record = clone.volume.record()
    assert record.flatten is None
    assert record.ancestors == 1
    clone.require_bytes(clone.volume.dek, *clone.volume.below)


def test_a_record_that_a_crash_left_behind_is_brought_up_to_date(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    """The parent is gone, and who flattened died before it could say so."""
    clone = make_clone(NEVER)
    image_id = clone.volume.volume_id.image_id
    specs = load_specs(clone.volume.dek, *clone.volume.below)
    with clone.volume.pool.open_loaded(image_id, specs) as image:
        image.acquire_lock()
        image.flatten(lambda _done, _total: True)
    assert clone.volume.record().ancestors == 1
    datapath.client.open(clone.flat.request())
    eventually("done", lambda: state(datapath, clone) is FlattenState.DONE, 20)
    datapath.client.close(clone.volume.volume_id)
    clone.require_flat()


def test_it_ends_right_when_a_crash_came_between_magic_and_parent(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    """In librbd's last steps the magic is that of a flat image, the parent there."""
    clone = make_clone(ALWAYS)
    first = clone.first_object()
    clone.volume.pool.ioctx.write(first, b"LUKS", 0)
    clone.volume.pool.ioctx.write(first, b"SKUL", 16384)
    assert clone.kind() is HeaderKind.LUKS2
    datapath.client.open(clone.volume.request())
    eventually("done", lambda: state(datapath, clone) is FlattenState.DONE, 20)
    datapath.client.close(clone.volume.volume_id)
    clone.require_flat()


def test_what_cannot_be_loaded_afterwards_is_never_recorded(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(NEVER)
    before = clone.volume.record()
    datapath.client.open(clone.volume.request())
    clone.volume.pool.ioctx.write(clone.first_object(), bytes(256 * 1024), 32768)
    datapath.client.flatten(clone.volume.volume_id)
    eventually("failed", lambda: state(datapath, clone) is FlattenState.FAILED, 20)
    assert not clone.has_parent()
    require_disk(datapath, clone)
    datapath.client.close(clone.volume.volume_id)
    assert clone.volume.record() == before
    assert "flatten failed" in datapath.log


def test_a_flatten_can_be_asked_for_whatever_the_policy(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(NEVER)
    volume_id = clone.volume.volume_id
    with pytest.raises(ExportLostError):
        datapath.client.flatten(volume_id)
    datapath.client.open(clone.volume.request())
    time.sleep(0.5)
    assert state(datapath, clone) is FlattenState.IDLE
    datapath.client.flatten(volume_id)
    with contextlib.suppress(PreconditionError):  # it was that fast
        datapath.client.flatten(volume_id)
    eventually("done", lambda: state(datapath, clone) is FlattenState.DONE, 20)
    with pytest.raises(PreconditionError, match="no parent"):
        datapath.client.flatten(volume_id)
    datapath.client.close(volume_id)
    clone.require_flat()


def test_it_waits_for_the_first_stage_to_replay_the_journal(
    make_clone: MakeClone, datapath: Running, eventually: Eventually
) -> None:
    clone = make_clone(ALWAYS, recovered=False)
    datapath.client.open(clone.volume.request())
    eventually("waits", lambda: state(datapath, clone) is FlattenState.WAITING, 5)
    clone.volume.change(lambda record: dataclasses.replace(record, recovered=True))
    eventually("done", lambda: state(datapath, clone) is FlattenState.DONE, 20)


@pytest.mark.parametrize("mode", [EncryptionMode.NONE, EncryptionMode.KEYRING])
def test_a_clone_of_plaintext_is_flattened_too(
    make_clone: MakeClone,
    datapath: Running,
    eventually: Eventually,
    mode: EncryptionMode,
) -> None:
    clone = make_clone(ALWAYS, mode=mode, parent_mode=EncryptionMode.NONE)
    datapath.client.open(clone.volume.request())
    eventually("done", lambda: state(datapath, clone) is FlattenState.DONE, 20)
    require_disk(datapath, clone)
    datapath.client.close(clone.volume.volume_id)
    clone.require_flat()


@pytest.mark.parametrize("read_only", [True, False])
def test_what_has_no_parent_or_no_lock_is_not_flattened(
    make_volume: MakeVolume, datapath: Running, read_only: bool
) -> None:
    volume = make_volume()
    datapath.client.open(volume.request(read_only=read_only))
    with pytest.raises(PreconditionError, match="read-only" if read_only else "parent"):
        datapath.client.flatten(volume.volume_id)


def test_snapshots_that_would_be_orphaned_forbid_it(
    make_clone: MakeClone, datapath: Running
) -> None:
    clone = make_clone(NEVER, features=("deep-flatten",))
    clone.take_snapshot()
    datapath.client.open(clone.volume.request())
    with pytest.raises(PreconditionError, match="deep-flatten"):
        datapath.client.flatten(clone.volume.volume_id)


# ------------------------------------------------------- a command has the lock


class Command:
    """Flattens as `volume flatten` does: loaded, with the lock, by the record."""

    def __init__(self, clone: Clone, *, obedient: bool) -> None:
        text = Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text()
        self._ceph = CephConnector(parse_clusters(text)).connect("lab")
        self._pool = self._ceph.pool_at(clone.volume.volume_id.location)
        self._image_id = clone.volume.volume_id.image_id
        self._obedient = obedient
        self.outcome: BaseException | None = None
        specs = load_specs(clone.volume.dek, *clone.volume.below)
        self._image = self._pool.open_loaded(self._image_id, specs)
        self._image.acquire_lock()
        work = FlattenWork(self._ceph.address)
        self._change(work)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def address(self) -> str:
        return self._ceph.address

    def end(self) -> None:
        self._obedient = True
        self._cancelled = True
        self._thread.join()
        self._ceph.close()

    _cancelled = False

    def _change(self, work: FlattenWork | None) -> None:
        change_record(
            self._pool,
            self._image_id,
            lambda record: dataclasses.replace(record, flatten=work),
        )

    def _more(self, _done: int, _total: int) -> bool:
        time.sleep(0.05)
        return not (self._obedient and self._cancelled)

    def _run(self) -> None:
        watching = threading.Thread(target=self._watch, daemon=True)
        watching.start()
        try:
            self._image.flatten(self._more)
        except CancelledError as error:
            self.outcome = error
        self._change(None)
        self._image.close()

    def _watch(self) -> None:
        while not self._cancelled:
            work = read_record(self._pool, self._image_id).flatten
            self._cancelled = work is not None and work.cancel
            time.sleep(0.3)


def test_a_stage_makes_a_flatten_command_let_go(
    make_clone: MakeClone, datapath: Running
) -> None:
    clone = make_clone(NEVER, size=LONG)
    command = Command(clone, obedient=True)
    begin = time.monotonic()
    opened = datapath.client.open(clone.volume.request())
    assert time.monotonic() - begin < 5
    assert clone.volume.lock_owner() == opened.client_address
    command.end()
    assert isinstance(command.outcome, CancelledError)
    require_disk(datapath, clone)
    assert clone.volume.record().flatten is None


@pytest.mark.parametrize("read_only", [True, False])
def test_a_command_that_keeps_the_lock_is_named(
    make_clone: MakeClone, datapath: Running, read_only: bool
) -> None:
    clone = make_clone(NEVER, size=LONG)
    command = Command(clone, obedient=False)
    with pytest.raises(InUseError, match=command.address):
        datapath.client.open(clone.volume.request(read_only=read_only))
    work = clone.volume.record().flatten
    assert work is not None
    assert work.cancel
    command.end()


def test_another_nodes_worker_is_not_told_to_cancel(
    make_clone: MakeClone, start_datapath: StartDatapath
) -> None:
    clone = make_clone(NEVER)
    here, there = start_datapath(), start_datapath()
    opened = here.client.open(clone.volume.request(node_id="node-a"))
    work = FlattenWork(opened.client_address, done=1, total=20)
    clone.volume.change(lambda record: dataclasses.replace(record, flatten=work))
    with pytest.raises(InUseError, match="node-a"):
        there.client.open(clone.volume.request(node_id="node-b"))
    assert clone.volume.record().flatten == work
    here.client.close(clone.volume.volume_id)


# ---------------------------------------------- somebody runs `rbd flatten`


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
