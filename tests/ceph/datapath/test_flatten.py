# SPDX-License-Identifier: Apache-2.0
"""Flattening an open clone: by policy, by request, and by other clients."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import time
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.record import EncryptionMode
from csi_driver.testing.lab_images import load_specs
from tests.ceph.datapath.clones import BLOCK
from tests.ceph.datapath.clones import require_disk
from tests.ceph.datapath.flattening import ALWAYS
from tests.ceph.datapath.flattening import NEVER

if TYPE_CHECKING:
    from tests.ceph.datapath.conftest import Eventually
    from tests.ceph.datapath.conftest import MakeVolume
    from tests.ceph.datapath.running import Running
from tests.ceph.datapath.flattening import LONG
from tests.ceph.datapath.flattening import MakeClone
from tests.ceph.datapath.flattening import copied_some
from tests.ceph.datapath.flattening import state


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
