# SPDX-License-Identifier: Apache-2.0
"""What the datapath could tell of open volumes, and somebody who hears notices."""

from __future__ import annotations

from pathlib import Path

from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import ExportStatus
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Notice
from csi_driver.domain.sizes import EffectiveSize

ONE = VolumeId(Location("fake", 1), "a1")
TWO = VolumeId(Location("fake", 1), "b2")


class Heard:
    """Keeps what is told; implements `Notices`."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def tell(self, notice: Notice) -> None:
        self.notices.append(notice)

    def take(self) -> list[tuple[str, object]]:
        """Return reason and object of all that was told since the last time."""
        told, self.notices = self.notices, []
        return [(each.what.value, each.about) for each in told]


def export(
    volume_id: VolumeId = ONE,
    *,
    flatten: FlattenStatus | None = None,
    pid: int = 7,
    alive: bool = True,
    busy: bool = False,
    read_only: bool = False,
    writes: int = 0,
    in_flight: int = 0,
    reads: int = 0,
    flushes: int = 0,
) -> ExportStatus:
    """Return how an open volume is; a busy or dead one tells no counters."""
    counters = Counters(
        reads=reads,
        read_bytes=0,
        writes=writes,
        written_bytes=0,
        flushes=flushes,
        errors=0,
        rejected=0,
        in_flight=in_flight,
        connections=1,
        fenced=False,
        flatten=flatten,
    )
    return ExportStatus(
        volume_id=volume_id,
        alive=alive,
        reason="" if alive else "its worker (process 7) was killed",
        device=Device(
            Path("/dev/nbd0"), DeviceKind.KERNEL, str(volume_id), read_only=False
        ),
        size=EffectiveSize(4096),
        read_only=read_only,
        worker_pid=pid if alive else 0,
        counters=counters if alive and not busy else None,
    )
