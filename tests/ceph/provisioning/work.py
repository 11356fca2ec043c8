# SPDX-License-Identifier: Apache-2.0
"""What the child processes of these tests do; `crash` runs and kills them."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.images import ceph
from csi_driver.images.port import Connector
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.testing.crash import Arguments
from csi_driver.testing.crash import real_connector
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.worlds import World

WATCH_SECONDS = 6
"""How long an OSD keeps the watch of a client that died; 30 by default, which
would only make the tests wait longer."""


class ChildWorld(World):
    """The place that the arguments name, seen from a child."""

    patience = 15.0

    def __init__(self, connector: Connector, arguments: Arguments) -> None:
        clusters = parse_clusters(arguments["config"])
        (config,) = clusters.by_id.values()
        self.cluster = config.cluster
        self.pool_name = config.pools[0].name
        self.namespace = config.pools[0].namespaces[0]
        super().__init__(connector, clusters)

    def content(self) -> dict[str, object]:
        raise NotImplementedError

    def images(self) -> list[str]:
        raise NotImplementedError

    def write_raw(self, volume_id: VolumeId, offset: int, data: bytes) -> None:
        raise NotImplementedError

    def read_raw(self, volume_id: VolumeId, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def elsewhere(self) -> list[dict[str, str]]:
        raise NotImplementedError

    def rename_snapshot(self, image_id: str, old: str, new: str) -> None:
        raise NotImplementedError

    def allocated(self, volume_id: VolumeId) -> int:
        raise NotImplementedError


def quick_connector() -> Connector:
    """Return the lab's connector; its clients' watches end early."""
    settings = {**ceph._SETTINGS, "osd_client_watch_timeout": str(WATCH_SECONDS)}
    ceph._SETTINGS = settings  # type: ignore[misc]
    return real_connector()


def create(connector: Connector, arguments: Arguments) -> None:
    """Create the named volume, encrypted unless asked otherwise."""
    world = ChildWorld(connector, arguments)
    name, size = arguments["name"], arguments["size"]
    if arguments.get("plain"):
        request = world.plaintext(name, size)
    else:
        request = world.request(name, size)
    world.volumes.create(request)


def delete(connector: Connector, arguments: Arguments) -> None:
    """Delete the volume of the given id."""
    world = ChildWorld(connector, arguments)
    world.volumes.delete(VolumeId.parse(arguments["id"]))


def take_snapshot(connector: Connector, arguments: Arguments) -> None:
    """Take the named snapshot of the volume of the given id."""
    world = ChildWorld(connector, arguments)
    world.snapshot(VolumeId.parse(arguments["id"]), arguments["name"])


def delete_snapshot(connector: Connector, arguments: Arguments) -> None:
    """Delete the snapshot of the given id."""
    world = ChildWorld(connector, arguments)
    world.volumes.delete_snapshot(SnapshotId.parse(arguments["id"]))


def clone(connector: Connector, arguments: Arguments) -> None:
    """Make the named clone of the volume or snapshot of the given id."""
    world = ChildWorld(connector, arguments)
    world.volumes.create(clone_of(world, arguments))


def clone_of(world: World, arguments: Arguments) -> CreateRequest:
    """Return the request for a clone, under a Secret of its own."""
    text = str(arguments["id"])
    source = SnapshotId.parse(text) if text[0] == "s" else VolumeId.parse(text)
    secrets = {**OTHER, **SOURCE}
    return clone_request(world, source, arguments["name"], secrets=secrets)


def collect(connector: Connector, arguments: Arguments) -> None:
    """Look for tombstones once."""
    ChildWorld(connector, arguments).collect()


def cut_create(connector: Connector, arguments: Arguments) -> None:
    """Create; killed within the call that makes the image."""
    steps = CuttingSteps("pool.create_image", arguments["delay"])
    create(FaultyConnector(connector, steps), arguments)


def cut_collect(connector: Connector, arguments: Arguments) -> None:
    """Collect; killed within the call that removes the image."""
    steps = CuttingSteps("pool.remove_image", arguments["delay"])
    collect(FaultyConnector(connector, steps), arguments)


class CuttingSteps(Steps):
    """Kills the process some seconds after the named step has begun."""

    def __init__(self, name: str, delay: float) -> None:
        super().__init__(Fault(0))
        self._name = name
        self._delay = delay

    def run[**P, R](
        self, name: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        if name == self._name:
            kill = (os.getpid(), signal.SIGKILL)
            threading.Timer(self._delay, os.kill, kill).start()
        return super().run(name, call, *args, **kwargs)


def churn(arguments: Arguments) -> None:
    """Create and delete one name in random order; print each answer as JSON."""
    world = ChildWorld(real_connector(), arguments)
    chance = random.Random(arguments["seed"])  # noqa: S311  # no secret
    request = world.plaintext(arguments["name"], arguments["size"])
    known: list[VolumeId] = []
    for _ in range(arguments["rounds"]):
        if known and chance.random() < 0.5:
            volume_id = chance.choice(known)
            _tell("delete", volume_id, lambda v=volume_id: world.volumes.delete(v))  # type: ignore[misc]
        else:
            made = _tell("create", None, lambda: world.volumes.create(request))
            if isinstance(made, VolumeInfo):
                known.append(made.volume_id)
        if chance.random() < 0.2:
            _tell("collect", None, world.collect)
        time.sleep(chance.random() * 0.02)


def _tell(what: str, volume_id: VolumeId | None, call: Callable[[], Any]) -> Any:
    began = time.monotonic()
    try:
        answer = call()
        error = ""
    except DriverError as caught:
        answer, error = None, f"{type(caught).__name__}: {caught}"
    if isinstance(answer, VolumeInfo):
        volume_id = answer.volume_id
    row = {"what": what, "id": str(volume_id), "error": error, "began": began}
    print(json.dumps({**row, "ended": time.monotonic()}), flush=True)  # noqa: T201
    return answer


if __name__ == "__main__":
    churn(json.load(sys.stdin))
