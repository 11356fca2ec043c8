# SPDX-License-Identifier: Apache-2.0
"""What dead workers left, here and on Ceph, and taking it back.

At its start a supervisor ends the workers of a dead one and removes their
devices.  What they held on Ceph, a lock and an entry in the record, is taken
back when their volume is closed, or broken when it is opened again.
"""

from __future__ import annotations

import os
import signal
from typing import Final

import structlog

from csi_driver.datapath.attachment import Devices
from csi_driver.datapath.attachment import cut_off_quietly
from csi_driver.datapath.export import CONTROL_SECONDS
from csi_driver.datapath.lives import Lives
from csi_driver.datapath.lives import WorkerMark
from csi_driver.datapath.messages import Predecessor
from csi_driver.datapath.messages import Release
from csi_driver.datapath.state import SavedExport
from csi_driver.datapath.state import StateDirectory
from csi_driver.datapath.staying import stays
from csi_driver.datapath.workers import WorkerPool
from csi_driver.datapath.workers import done
from csi_driver.devices.device import ProcessMark
from csi_driver.devices.device import process_descriptor
from csi_driver.devices.sysfs import wait_until
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import VolumeId
from csi_driver.images.users import own_user

ORPHAN_PATIENCE: Final = 5.0
"""Seconds in which a worker without a supervisor should have ended by itself."""

_KILL_SECONDS: Final = 10.0
_log = structlog.get_logger(__name__)


class Leftovers:
    """Cleans up after dead workers of this node."""

    def __init__(
        self,
        *,
        state: StateDirectory,
        pool: WorkerPool,
        devices: Devices,
        clusters: Clusters | None,
        boot_id: str,
    ) -> None:
        """`clusters` give the driver's own Ceph users."""
        self._state = state
        self._pool = pool
        self._devices = devices
        self._clusters = clusters
        self._boot_id = boot_id
        self.dead: dict[VolumeId, SavedExport] = {}

    def recover(self) -> None:
        """Clean up after a dead supervisor, as far as it concerns this node."""
        for saved in self._state.all():
            if saved.boot_id != self._boot_id:
                continue  # nothing of it can be left here
            _log.warning("volume of a dead datapath", volume=str(saved.volume_id))
            try:
                self._end_worker(saved)
            except DriverError as error:
                _log.error("leftover worker", error=str(error))
                continue
            self._detach(saved)
            self.dead[saved.volume_id] = saved

    def predecessor(self, saved: SavedExport | None) -> Predecessor:
        """Prove the volume's last worker on this node dead, and say who it was."""
        if saved is None:
            return Predecessor()
        if saved.boot_id == self._boot_id:
            self._end_worker(saved)
        self.dead.pop(saved.volume_id, None)
        return Predecessor(saved.clients, gone=True)

    def release(self, volume_id: VolumeId) -> None:
        """Take back what dead workers of a volume hold on Ceph, and forget it.

        UnavailableError if Ceph does not answer.
        """
        saved = self._state.load(volume_id)
        if saved is None:
            return
        predecessor = self.predecessor(saved)
        config = self._config(volume_id)
        if config is None:
            _log.warning(
                "the lock of a dead worker stays until the volume is opened here:"
                " its cluster is not configured",
                volume=str(volume_id),
            )
            return
        user = own_user(config)
        request = Release(
            volume_id=volume_id,
            monitors=config.monitors,
            user_id=user.user_id,
            key=user.key,
            node_id=saved.node_id,
            boot_id=self._boot_id,
            predecessor=predecessor,
        )
        worker = self._pool.take()
        try:
            done(worker.ask(request, CONTROL_SECONDS))
        finally:
            request.key.wipe()
            worker.dismiss()
            self._pool.refill()
        self._state.remove(volume_id)

    def _end_worker(self, saved: SavedExport) -> None:
        if saved.worker is not None:
            end_leftover(saved.worker, self._state.lives, ORPHAN_PATIENCE)

    def _detach(self, saved: SavedExport) -> None:
        device = self._devices.find(str(saved.volume_id))
        if device is None:
            return
        try:
            self._devices.of(device).detach(device, served=False)
        except DriverError as error:
            _log.warning("device stays", device=str(device.path), error=str(error))
            cut_off_quietly(self._devices, device)

    def _config(self, volume_id: VolumeId) -> ClusterConfig | None:
        if self._clusters is None:
            return None
        return self._clusters.by_id.get(volume_id.location.cluster)


def end_leftover(worker: WorkerMark, lives: Lives, patience: float) -> None:
    """Wait for a worker of a dead supervisor, which ends by itself; or kill it.

    PendingError while it has to stay, or ends in another container, where it
    cannot be killed from here; UnavailableError if it survives even that.
    """
    if lives.ended(worker.life):
        return
    mark = worker.process
    if not worker.visible:
        if wait_until(lambda: lives.ended(worker.life), patience):
            return
        message = (
            f"worker {mark.pid} of an earlier datapath, or another one of its workers,"
            " still runs in another PID namespace: end that container, and try again"
        )
        raise PendingError(message)
    if mark.wait_gone(patience):
        return
    if stays(mark.pid) and ProcessMark.of(mark.pid) == mark:
        message = (
            f"worker {mark.pid}, which an earlier datapath started, carries out a"
            " flatten that another client asked for: it has to end first"
        )
        raise PendingError(message)
    descriptor = process_descriptor(mark.pid)
    if descriptor is None:
        return
    try:
        if ProcessMark.of(mark.pid) == mark:
            _log.warning("killing a leftover worker", pid=mark.pid)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
    if not mark.wait_gone(_KILL_SECONDS):
        raise UnavailableError(f"worker {mark.pid} does not end after SIGKILL")
