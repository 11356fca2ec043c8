# SPDX-License-Identifier: Apache-2.0
"""The open volumes of one supervisor, each with its worker and its device.

Calls on one volume exclude each other: the second gets PendingError at once.
Everything here is idempotent, and each step leaves in the state directory what
a successor needs to clean up after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from csi_driver.datapath import opening
from csi_driver.datapath.attachment import Devices
from csi_driver.datapath.attachment import cut_off_quietly
from csi_driver.datapath.export import CLOSE_SECONDS
from csi_driver.datapath.export import CONTROL_SECONDS
from csi_driver.datapath.export import RELEASE_SECONDS
from csi_driver.datapath.export import LiveExport
from csi_driver.datapath.export import dead_status
from csi_driver.datapath.leftovers import Leftovers
from csi_driver.datapath.messages import CloseImage
from csi_driver.datapath.messages import ConfirmSize
from csi_driver.datapath.messages import Count
from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import ExportStatus
from csi_driver.datapath.messages import FlattenImage
from csi_driver.datapath.messages import GrowImage
from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.messages import Sized
from csi_driver.datapath.messages import Staying
from csi_driver.datapath.state import StateDirectory
from csi_driver.datapath.workers import Worker
from csi_driver.datapath.workers import WorkerPool
from csi_driver.datapath.workers import done
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import EffectiveSize

_STAY_SECONDS: Final = 0.5
"""How often a worker that has to stay is asked again, at the datapath's end."""

_log = structlog.get_logger(__name__)


class Exports:
    """The table of open volumes.  Methods may be called from any thread."""

    def __init__(
        self,
        *,
        state: StateDirectory,
        pool: WorkerPool,
        devices: Devices,
        leftovers: Leftovers,
        run_dir: Path,
    ) -> None:
        self._state = state
        self._pool = pool
        self._devices = devices
        self._leftovers = leftovers
        self._run_dir = run_dir
        self._lock = threading.Lock()
        self._busy: set[VolumeId] = set()
        self._table: dict[VolumeId, LiveExport] = {}
        self._closed = False

    # ------------------------------------------------------------ the requests

    def open(self, volume: OpenVolume) -> OpenedVolume:
        """Open a volume, or return it if it is open in the same way.

        PreconditionError if it is open in another way; otherwise what the
        worker and the attaching raise, and then nothing stays behind.
        """
        with self._guarded(volume.volume_id):
            present = self._table.get(volume.volume_id)
            if present is not None:
                if present.alive and self._answers(present):
                    return present.same(volume)
                self._clear(present)
            saved = self._state.load(volume.volume_id)
            predecessor = self._leftovers.predecessor(saved)
            means = opening.Means(self._state, self._pool, self._devices, self._run_dir)
            export = opening.open_export(means, volume, saved, predecessor)
            self._table[volume.volume_id] = export
            export.worker.watch(lambda: self._ended(export))
            opened = export.opened
            export.opened = dataclasses.replace(opened, fenced=None)
            return opened

    def close(self, volume_id: VolumeId) -> None:
        """Take device, export and worker away; nothing to do is success.

        InUseError while the device is mounted or held open: nothing has been
        changed then, but that a kernel NBD device which a process holds open
        without a mount may have been disconnected under it.
        UnavailableError if a dead worker's lock could not be taken back because
        Ceph does not answer: worker and device are gone all the same, and
        repeating the call tries again.  PendingError while the worker has to
        stay because another client's flatten would be ruined: the device is gone
        then, and repeating the call ends the worker once it may.
        PreconditionError if only a datapath of another version knows what is open.
        """
        with self._guarded(volume_id, closing=True):
            self._close(volume_id)

    def grow(self, volume_id: VolumeId) -> EffectiveSize:
        """Bring image, export and device to the record's desired size.

        As long as Ceph takes: a worker that is late because Ceph does not
        answer still serves, and killing it would fail its mounted filesystem.
        Who asked may give up; the volume stays busy until the work has ended.
        """
        with self._guarded(volume_id):
            export = self._required(volume_id)
            sized = export.worker.ask(GrowImage(), None)
            if not isinstance(sized, Sized):
                raise InternalError(f"a worker answered {type(sized).__name__}")
            device = export.opened.device
            self._devices.of(device).grow(
                device, sized.size.count, lambda: self._answers(export)
            )
            export.resized(sized.size)
            self._state.store(export.saved)
            done(export.worker.ask(ConfirmSize(sized.size), None))
            return sized.size

    def flatten(self, volume_id: VolumeId) -> None:
        """Have a clone flattened beside its I/O; it is only begun when this returns.

        PreconditionError if it cannot be.
        """
        with self._guarded(volume_id):
            export = self._required(volume_id)
            done(export.worker.ask(FlattenImage(), None))

    @property
    def calls(self) -> int:
        """How many calls are at work on volumes."""
        return len(self._busy)

    @property
    def spares(self) -> int:
        """How many workers wait for a volume."""
        return self._pool.spares

    def status(
        self, volume_id: VolumeId | None, seconds: float = CONTROL_SECONDS
    ) -> tuple[ExportStatus, ...]:
        """Tell how one export is, or all; empty for one that is not there.

        Workers that do not answer within `seconds` in all tell no counters.
        """
        until = time.monotonic() + seconds
        with self._lock:
            found = [
                export
                for key, export in self._table.items()
                if volume_id is None or key == volume_id
            ]
            dead = dict(self._leftovers.dead)
        known = {export.saved.volume_id for export in found}
        return (
            *(export.status(self._counters(export, until)) for export in found),
            *(
                dead_status(saved)
                for key, saved in dead.items()
                if key not in known and (volume_id is None or key == volume_id)
            ),
        )

    def shut_down(self, seconds: float, *, leave_behind: bool = True) -> None:
        """Close everything in parallel, within a bound; then kill what is left.

        Workers that have to stay are left behind, or waited for without a bound
        where they would not outlive this process.
        """
        with self._lock:
            self._closed = True
            exports = list(self._table.values())
        threads = [
            threading.Thread(target=self._shut_down_one, args=(export,), daemon=True)
            for export in exports
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for export, thread in zip(exports, threads, strict=True):
            worker = export.worker
            if worker.stays and not leave_behind:
                _log.error("a worker has to stay and is waited for", pid=worker.pid)
                thread.join()
            if worker.stays:
                _log.error("worker left behind, it has to stay", pid=worker.pid)
                worker.dismiss()
            elif worker.alive:
                _log.error("worker killed at shutdown", pid=worker.pid)
                worker.kill()
        self._pool.close()

    # ---------------------------------------------------------------- closing

    def _close(self, volume_id: VolumeId) -> None:
        export = self._table.get(volume_id)
        if export is None:
            self._state.load(volume_id)  # refuses a foreign one before all else
            self._detach(volume_id, None)
        else:
            self._clear(export)
        self._leftovers.release(volume_id)

    def _clear(self, export: LiveExport) -> None:
        """Take device and worker of an export away, whether it lives or not."""
        with export.fate:
            self._detach(export.saved.volume_id, export)
            export.closing = True
            export.detached = True
        self._end_worker(export)
        with self._lock:
            del self._table[export.saved.volume_id]

    def _detach(self, volume_id: VolumeId, export: LiveExport | None) -> None:
        """Detach the volume's device, known or found; it is ours by identity.

        Once is enough: its number may be another volume's afterwards.
        """
        if export is not None and export.detached:
            return
        device = self._devices.find(str(volume_id))
        if device is None and export is not None:
            device = export.opened.device
        if device is None:
            return
        served = export is not None and export.alive
        try:
            self._devices.of(device).detach(device, served=served)
        except InUseError:
            raise
        except DriverError as error:
            if export is None:
                raise
            # A wedged worker can hold up the detaching; it has to go first.
            _log.warning("detach failed", device=str(device.path), error=str(error))
            export.closing = True
            export.worker.kill()
            self._devices.of(device).detach(device, served=False)

    def _end_worker(self, export: LiveExport) -> None:
        """Let the worker close, within a bound; then it has ended in any case.

        But PendingError if it says that it has to stay.
        """
        worker = export.worker
        volume_id = export.saved.volume_id
        released, reason = False, ""
        if worker.alive:
            try:
                reason = _close_image(worker)
                released = not reason and worker.wait(CLOSE_SECONDS)
            except DriverError as error:
                _log.error(
                    "worker did not close cleanly",
                    volume=str(volume_id),
                    pid=worker.pid,
                    error=str(error),
                )
        if reason:
            raise PendingError(reason)
        worker.dismiss()
        if worker.alive:
            worker.kill()
        if released:
            self._state.remove(volume_id)

    def _shut_down_one(self, export: LiveExport) -> None:
        """Close one volume even if it is mounted: its users get errors then."""
        export.closing = True
        detaching = threading.Thread(
            target=self._detach_quietly, args=(export,), daemon=True
        )
        detaching.start()
        # A device that somebody keeps open must not cost the clean close.
        detaching.join(RELEASE_SECONDS)
        while True:
            try:
                return self._end_worker(export)
            except PendingError:
                time.sleep(_STAY_SECONDS)

    def _detach_quietly(self, export: LiveExport) -> None:
        with export.fate:
            try:
                self._detach(export.saved.volume_id, export)
            except DriverError as error:
                _log.error(
                    "volume is in use while the datapath ends: its I/O will fail",
                    volume=str(export.saved.volume_id),
                    error=str(error),
                )
                cut_off_quietly(self._devices, export.opened.device)

    # ---------------------------------------------------------------- details

    def _ended(self, export: LiveExport) -> None:
        """Note a worker's end; unasked for, it fails its device at once."""
        with export.fate:
            if export.closing or export.reason:
                return
            worker, device = export.worker, export.opened.device
            export.reason = f"its worker (process {worker.pid}) {worker.end}"
            _log.error(
                "a worker died: its volume fails all I/O until it is staged anew",
                volume=str(export.saved.volume_id),
                pid=worker.pid,
                end=worker.end,
                device=str(device.path),
            )
            cut_off_quietly(self._devices, device)

    def _answers(self, export: LiveExport) -> bool:
        try:
            # Others count all the time, and who is busy with that is not dead.
            answer = export.worker.ask_in_turn(Count(), CONTROL_SECONDS)
        except DriverError:
            return False
        return isinstance(answer, Counters) and not answer.fenced

    def _counters(self, export: LiveExport, until: float) -> Counters | None:
        left = until - time.monotonic()
        if left <= 0 or not export.alive:
            return None
        try:
            answer = export.worker.ask_if_idle(Count(), left)
        except DriverError as error:
            _log.warning("no counters", pid=export.worker.pid, error=str(error))
            return None
        return answer if isinstance(answer, Counters) else None

    def _required(self, volume_id: VolumeId) -> LiveExport:
        export = self._table.get(volume_id)
        if export is None:
            raise ExportLostError(f"volume {volume_id} is not open on this node")
        if not export.alive:
            raise ExportLostError(
                f"the export of volume {volume_id} is dead ({export.reason}):"
                " the volume has to be staged anew"
            )
        return export

    @contextlib.contextmanager
    def _guarded(self, volume_id: VolumeId, *, closing: bool = False) -> Iterator[None]:
        with self._lock:
            if self._closed and not closing:
                raise PreconditionError("the datapath is shutting down")
            if volume_id in self._busy:
                message = f"another call is at work on volume {volume_id}"
                raise PendingError(message)
            self._busy.add(volume_id)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(volume_id)


def _close_image(worker: Worker) -> str:
    """Ask a worker to close; return why it has to stay, "" if it does not."""
    answer = worker.ask(CloseImage(), CLOSE_SECONDS)
    if isinstance(answer, Staying):
        return answer.reason
    done(answer)
    return ""
