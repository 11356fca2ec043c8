# SPDX-License-Identifier: Apache-2.0
"""The driver's Events with a clock and an API server of a test's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Pod
from csi_driver.kube.api import ApiLimits
from csi_driver.kube.api import KubernetesApi
from csi_driver.kube.claims import Claims
from csi_driver.kube.event_objects import Reporter
from csi_driver.kube.events import EventCounts
from csi_driver.kube.events import Events
from tests.unit.kube.event_server import EventServer

VOLUME = VolumeId(Location("lab", 3), "a1b2")
CLAIM = Claim("tenant-a", "data", "8c1a0c3e-0000-4000-8000-000000000001")
POD = Pod("tenant-a", "web-0", "8c1a0c3e-0000-4000-8000-000000000002")
PV = "pvc-8c1a0c3e-0000-4000-8000-000000000001"
WRONG = Notice(Happening.WRONG_SECRET, VOLUME, "volume 'x': the Secret is wrong")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """Events over a real client, and the server they go to."""

    def __init__(self, server: EventServer, directory: Path) -> None:
        self.server = server
        self.clock = Clock()
        limits = ApiLimits(
            connect=0.5, read=0.5, total=1.0, attempts=2, first_wait=0.01
        )
        self.api = KubernetesApi(server.kubeconfig(directory), limits)
        self.names: dict[VolumeId, str] = {VOLUME: PV}
        self.looked: list[VolumeId] = []
        server.bind(PV, str(VOLUME), ("tenant-a", "data", CLAIM.uid))
        self.events = self.another()

    def another(self, most_waiting: int = 64) -> Events:
        return Events(
            self.api,
            Claims("csi.rbdcrypt.io", self.api, self._name_of, self.clock),
            Reporter("csi.rbdcrypt.io", "node-a"),
            most_waiting=most_waiting,
            clock=self.clock,
        )

    def _name_of(self, volume_id: VolumeId) -> str:
        self.looked.append(volume_id)
        if volume_id not in self.names:
            message = f"no volume {volume_id}"
            raise NotFoundError(message)
        return self.names[volume_id]

    def tell(self, *notices: Notice) -> EventCounts:
        """Tell and wait until each of them has met its fate."""
        before = total(self.events)
        for notice in notices:
            self.events.tell(notice)
        eventually(lambda: total(self.events) == before + len(notices))
        return self.events.counts


def total(events: Events) -> int:
    counts = events.counts
    return (
        counts.posted
        + counts.repeated
        + counts.limited
        + counts.nameless
        + counts.failed
        + counts.dropped
    )


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
