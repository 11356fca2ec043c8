# SPDX-License-Identifier: Apache-2.0
"""Opening one volume: a worker that loads and locks it, then its device.

What could outlive a crash is written down before it exists: the worker's
process before the worker is told anything, its Ceph client before it takes the
lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Final

import structlog

from csi_driver.datapath.attachment import Devices
from csi_driver.datapath.export import CLOSE_SECONDS
from csi_driver.datapath.export import CONTROL_SECONDS
from csi_driver.datapath.export import OPEN_SECONDS
from csi_driver.datapath.export import LiveExport
from csi_driver.datapath.messages import CloseImage
from csi_driver.datapath.messages import Connected
from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import OpenImage
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.messages import Predecessor
from csi_driver.datapath.messages import Proceed
from csi_driver.datapath.messages import Serving
from csi_driver.datapath.state import SavedExport
from csi_driver.datapath.state import StateDirectory
from csi_driver.datapath.state import digest
from csi_driver.datapath.workers import Worker
from csi_driver.datapath.workers import WorkerPool
from csi_driver.devices.device import AttachMethod
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.devices.device import NbdExport
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InternalError

CEILING: Final = 1 << 46
"""Bytes (64 TiB) that an export announces to nbdfuse, which asks only once."""

REFILL_DELAY: Final = 0.3
"""Seconds after an open until the next worker starts: the stage ends meanwhile."""

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """What opening needs from the supervisor."""

    state: StateDirectory
    pool: WorkerPool
    devices: Devices
    run_dir: Path


def open_export(
    means: Means,
    volume: OpenVolume,
    before: SavedExport | None,
    predecessor: Predecessor,
) -> LiveExport:
    """Open the volume in a fresh worker and attach its device.

    On failure the worker has ended and no device is left; if the worker ended
    by itself, the state keeps its Ceph client for whoever comes next.
    """
    method = means.devices.method(volume.method)
    worker = means.pool.take()
    saved = SavedExport(
        volume_id=volume.volume_id,
        node_id=volume.node_id,
        boot_id=volume.boot_id,
        read_only=volume.read_only,
        size=0,
        worker=worker.mark,
        clients=predecessor.addresses,
    )
    try:
        means.state.store(saved)
        export = _Opening(means, volume, method, worker, saved).run(predecessor)
    except BaseException:
        if _end(worker):
            _restore(means.state, volume, before)
        raise
    finally:
        means.pool.refill(REFILL_DELAY)
    return export


class _Opening:
    """The steps, with what each of them learned."""

    def __init__(
        self,
        means: Means,
        volume: OpenVolume,
        method: AttachMethod,
        worker: Worker,
        saved: SavedExport,
    ) -> None:
        self._means = means
        self._volume = volume
        self._method = method
        self._worker = worker
        self._saved = saved
        self._socket_path = ""
        self._ceiling = 0
        if method.kind is DeviceKind.FUSE:
            name = f"{digest(volume.volume_id)}.nbd"
            self._socket_path = str(means.run_dir / name)
            self._ceiling = CEILING

    def run(self, predecessor: Predecessor) -> LiveExport:
        """Take all the steps."""
        begin = time.monotonic()
        address = self._connect(predecessor)
        self._note(clients=(*self._saved.clients, address))
        serving = self._worker.ask(Proceed(), OPEN_SECONDS)
        if not isinstance(serving, Serving):
            raise InternalError(f"a worker answered {type(serving).__name__}")
        loaded = time.monotonic()
        # The lock is the new client's, so the old ones hold nothing any more.
        device = self._attach(serving)
        self._note(clients=(address,), size=serving.size.count, device=device)
        _log.info(
            "volume open",
            volume=str(self._volume.volume_id),
            pid=self._worker.pid,
            client=address,
            device=str(device.path),
            size=serving.size.count,
            open_seconds=round(loaded - begin, 3),
            attach_seconds=round(time.monotonic() - loaded, 3),
        )
        return LiveExport(
            self._saved,
            self._volume.mode,
            self._worker,
            OpenedVolume(device, serving.size, address, serving.fenced),
        )

    def _connect(self, predecessor: Predecessor) -> str:
        request = OpenImage(self._volume, predecessor, self._socket_path, self._ceiling)
        try:
            connected = self._worker.ask(request, OPEN_SECONDS)
        finally:
            self._volume.wipe()
        if not isinstance(connected, Connected):
            raise InternalError(f"a worker answered {type(connected).__name__}")
        return connected.client_address

    def _attach(self, serving: Serving) -> Device:
        """Attach; a device that still names this volume is a dead export's.

        The lock proves it: whoever served that device has lost it.
        """
        stale = self._means.devices.find(str(self._volume.volume_id))
        if stale is not None:
            self._means.devices.of(stale).detach(stale, served=False)
        export = NbdExport(
            identity=str(self._volume.volume_id),
            size=serving.size.count,
            read_only=self._volume.read_only,
            flags=serving.flags,
            socket_path=Path(self._socket_path) if self._socket_path else None,
        )
        return self._method.attach(
            export,
            lambda passed: self._worker.give_socket(passed, CONTROL_SECONDS),
        )

    def _note(
        self,
        *,
        clients: tuple[str, ...],
        size: int = 0,
        device: Device | None = None,
    ) -> None:
        self._saved = dataclasses.replace(
            self._saved, clients=clients, size=size, device=device
        )
        self._means.state.store(self._saved)


def _end(worker: Worker) -> bool:
    """End a worker after a failure; True if it leaves nothing on Ceph."""
    clean = False
    if worker.alive:
        with contextlib.suppress(DriverError):
            worker.ask(CloseImage(), CLOSE_SECONDS)
            clean = True
    worker.dismiss()
    if not worker.wait(CLOSE_SECONDS):
        if not worker.stays:
            worker.kill()
        return False
    return clean or worker.end == _CLEAN_END


_CLEAN_END: Final = "ended with status 0"


def _restore(
    state: StateDirectory, volume: OpenVolume, before: SavedExport | None
) -> None:
    if before is None:
        state.remove(volume.volume_id)
    else:
        state.store(dataclasses.replace(before, worker=None))
