# SPDX-License-Identifier: Apache-2.0
"""A stage and a command that flattens: which of them has the lock."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.flattening import FlattenWork
from csi_driver.images.ceph import CephConnector
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.testing.lab_images import load_specs
from tests.ceph.datapath.clones import Clone
from tests.ceph.datapath.clones import require_disk
from tests.ceph.datapath.flattening import NEVER

if TYPE_CHECKING:
    from tests.ceph.datapath.conftest import StartDatapath
    from tests.ceph.datapath.running import Running
from tests.ceph.datapath.flattening import LONG
from tests.ceph.datapath.flattening import MakeClone


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
