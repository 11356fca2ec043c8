# SPDX-License-Identifier: Apache-2.0
"""The flattens of a node as Prometheus reads them."""

from __future__ import annotations

from typing import NoReturn

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import ExportStatus
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.observability.flattens import FlattenMetrics


def export(
    image: str, flatten: FlattenStatus | None, *, alive: bool = True
) -> ExportStatus:
    counters = Counters(0, 0, 0, 0, 0, 0, 0, 0, 0, fenced=False, flatten=flatten)
    return ExportStatus(
        volume_id=VolumeId(Location("c", 1), image),
        alive=alive,
        reason="",
        device=None,
        size=EffectiveSize(4096),
        read_only=False,
        worker_pid=1,
        counters=counters if alive else None,
    )


def test_every_flatten_has_its_state_and_its_objects() -> None:
    registry = CollectorRegistry()
    exports = [
        export("f1", FlattenStatus(FlattenState.COPYING, 7, 64)),
        export("f2", FlattenStatus(FlattenState.FAILED, reason="full")),
        export("f3", FlattenStatus()),
        export("f4", None),
        export("f5", None, alive=False),
    ]
    registry.register(FlattenMetrics(lambda: exports))
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'rbdcrypt_flatten_state{state="copying",volume="v1:c:1::f1"} 1.0',
        'rbdcrypt_flatten_state{state="failed",volume="v1:c:1::f2"} 1.0',
        'rbdcrypt_flatten_objects_done{volume="v1:c:1::f1"} 7.0',
        'rbdcrypt_flatten_objects{volume="v1:c:1::f1"} 64.0',
    ]


def test_without_a_datapath_there_are_none() -> None:
    def absent() -> NoReturn:
        message = "the datapath does not answer"
        raise UnavailableError(message)

    registry = CollectorRegistry()
    registry.register(FlattenMetrics(absent))
    assert 'state="' not in generate_latest(registry).decode()
