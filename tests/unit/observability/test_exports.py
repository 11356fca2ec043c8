# SPDX-License-Identifier: Apache-2.0
"""The volumes of a datapath as Prometheus reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import ExportStatus
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.observability.exports import ASK_SECONDS
from csi_driver.observability.exports import ExportMetrics

COUNTERS = Counters(1, 2, 3, 4, 5, 6, 7, 8, 9, fenced=False)


def export(
    image: str,
    *,
    flatten: FlattenStatus | None = None,
    told: bool = True,
    alive: bool = True,
) -> ExportStatus:
    volume_id = VolumeId(Location("c", 1), image)
    device = Device(
        Path("/dev/nbd7"), DeviceKind.KERNEL, str(volume_id), read_only=not alive
    )
    return ExportStatus(
        volume_id=volume_id,
        alive=alive,
        reason="" if alive else "its worker died",
        device=device if alive else None,
        size=EffectiveSize(4096),
        read_only=not alive,
        worker_pid=int(alive),
        counters=dataclasses.replace(COUNTERS, flatten=flatten) if told else None,
    )


class Told:
    """A datapath that says what it was given, and counts who asks."""

    def __init__(self, *exports: ExportStatus) -> None:
        self.exports = exports
        self.asked: list[float] = []
        self.calls = 2
        self.spares = 1

    def status(
        self, volume_id: VolumeId | None, seconds: float
    ) -> tuple[ExportStatus, ...]:
        assert volume_id is None
        self.asked.append(seconds)
        return self.exports


def rows(datapath: Told) -> list[str]:
    registry = CollectorRegistry()
    registry.register(ExportMetrics(datapath))
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_an_open_volume_tells_what_it_is_and_does() -> None:
    of = 'volume="v1:c:1::e1"'
    assert rows(Told(export("e1"))) == [
        "rbdcrypt_datapath_calls 2.0",
        "rbdcrypt_datapath_spare_workers 1.0",
        f"rbdcrypt_export_alive{{{of}}} 1.0",
        f"rbdcrypt_export_size_bytes{{{of}}} 4096.0",
        f'rbdcrypt_export_info{{access="rw",device="nbd7",{of}}} 1.0',
        f'rbdcrypt_export_operations_total{{operation="read",{of}}} 1.0',
        f'rbdcrypt_export_operations_total{{operation="write",{of}}} 3.0',
        f'rbdcrypt_export_operations_total{{operation="flush",{of}}} 5.0',
        f'rbdcrypt_export_bytes_total{{operation="read",{of}}} 2.0',
        f'rbdcrypt_export_bytes_total{{operation="write",{of}}} 4.0',
        f"rbdcrypt_export_errors_total{{{of}}} 6.0",
        f"rbdcrypt_export_rejected_total{{{of}}} 7.0",
        f"rbdcrypt_export_in_flight{{{of}}} 8.0",
    ]


def test_a_dead_volume_is_counted_without_its_work() -> None:
    found = rows(Told(export("e1", told=False, alive=False)))
    assert 'rbdcrypt_export_alive{volume="v1:c:1::e1"} 0.0' in found
    assert any('access="ro",device=""' in line for line in found)
    assert not any("operations" in line for line in found)


def test_every_flatten_has_its_state_and_its_objects() -> None:
    found = rows(
        Told(
            export("f1", flatten=FlattenStatus(FlattenState.COPYING, 7, 64)),
            export("f2", flatten=FlattenStatus(FlattenState.FAILED, reason="full")),
            export("f3", flatten=FlattenStatus()),
            export("f4"),
            export("f5", told=False, alive=False),
        )
    )
    assert [line for line in found if "flatten" in line] == [
        'rbdcrypt_flatten_state{state="copying",volume="v1:c:1::f1"} 1.0',
        'rbdcrypt_flatten_state{state="failed",volume="v1:c:1::f2"} 1.0',
        'rbdcrypt_flatten_objects_done{volume="v1:c:1::f1"} 7.0',
        'rbdcrypt_flatten_objects{volume="v1:c:1::f1"} 64.0',
    ]


def test_workers_are_asked_once_a_second_at_most() -> None:
    datapath = Told(export("e1"))
    registry = CollectorRegistry()
    registry.register(ExportMetrics(datapath))
    assert datapath.asked == [], "registering asks nobody"
    for _ in range(5):
        generate_latest(registry)
    assert datapath.asked == [ASK_SECONDS]
