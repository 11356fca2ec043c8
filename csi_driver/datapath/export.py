# SPDX-License-Identifier: Apache-2.0
"""One open volume as its supervisor knows it."""

from __future__ import annotations

import dataclasses
import threading
from typing import Final

from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import ExportStatus
from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.state import SavedExport
from csi_driver.datapath.workers import Worker
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.sizes import EffectiveSize

CONTROL_SECONDS: Final = 20.0
"""For answers that need one short exchange with Ceph, or none."""

OPEN_SECONDS: Final = 180.0
"""For opening: a passphrase's key derivation on a busy machine takes long."""

CLOSE_SECONDS: Final = 20.0
"""For closing; a worker that takes longer is killed, and the key with it."""

RELEASE_SECONDS: Final = 3.0
"""At the datapath's end: how long a device in use holds up closing its volume."""

RESTARTED: Final = "the datapath was restarted, and its worker ended with it"


@dataclasses.dataclass(slots=True, eq=False)
class LiveExport:
    """An open volume; `reason` is set when its worker died unasked.

    `closing` is set before the worker is made to end; a worker that has to stay
    is left without a device, and `detached`.  Who touches the device
    holds `fate`, so that a worker's death is either dealt with before, or found
    to be wanted.
    """

    saved: SavedExport
    mode: EncryptionMode
    worker: Worker
    opened: OpenedVolume
    closing: bool = False
    detached: bool = False
    reason: str = ""
    fate: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    @property
    def alive(self) -> bool:
        """Whether the worker, and an nbdfuse if there is one, still serve."""
        return self.worker.alive and not self.detached and not self._device_lost()

    def same(self, volume: OpenVolume) -> OpenedVolume:
        """Return the open volume if it was opened as `volume` asks.

        PreconditionError otherwise.  Passphrases are not compared: nobody here
        has the old ones any more.
        """
        asked = (volume.read_only, volume.mode, volume.node_id)
        if asked != (self.saved.read_only, self.mode, self.saved.node_id):
            message = (
                f"volume {volume.volume_id} is open"
                f" {'read-only' if self.saved.read_only else 'writable'} with"
                f" encryption mode {self.mode.value!r} on node"
                f" {self.saved.node_id!r}: close it before it is opened differently"
            )
            raise PreconditionError(message)
        return self.opened

    def resized(self, size: EffectiveSize) -> None:
        """Note the size after growing."""
        self.opened = dataclasses.replace(self.opened, size=size)
        self.saved = dataclasses.replace(self.saved, size=size.count)

    def status(self, counters: Counters | None) -> ExportStatus:
        """Say how it is."""
        fenced = counters is not None and counters.fenced
        reason = self.reason
        if self.detached and self.worker.alive:
            reason = "it is being closed"
        elif self.worker.alive and self._device_lost():
            reason = "nbdfuse, which its device needs, has ended"
        elif fenced:
            reason = "its Ceph client was fenced"
        return ExportStatus(
            volume_id=self.saved.volume_id,
            alive=self.alive and not fenced,
            reason=reason or self.worker.end,
            device=None if self.detached else self.opened.device,
            size=self.opened.size,
            read_only=self.saved.read_only,
            worker_pid=self.worker.pid if self.worker.alive else 0,
            counters=counters,
        )

    def _device_lost(self) -> bool:
        process = self.opened.device.process
        return process is not None and process.wait_gone(0)


def dead_status(saved: SavedExport) -> ExportStatus:
    """Say of an export that it ended with an earlier datapath."""
    return ExportStatus(
        volume_id=saved.volume_id,
        alive=False,
        reason=RESTARTED,
        device=saved.device,
        size=EffectiveSize(saved.size),
        read_only=saved.read_only,
        worker_pid=0,
        counters=None,
    )
