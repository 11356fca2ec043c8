# SPDX-License-Identifier: Apache-2.0
"""The driver's processes with a small API server of the tests before them.

Everything else is real: the processes, their sockets, Ceph.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from collections.abc import Mapping

import pytest

from tests.ceph.end_to_end import secrets_of
from tests.ceph.end_to_end.traces import Canaries
from tests.ceph.end_to_end.world import Machine
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import machine
from tests.ceph.events.claims import Claims
from tests.unit.kube.event_server import EventServer
from tests.unit.kube.event_server import event_server


@pytest.fixture(scope="module")
def server() -> Iterator[EventServer]:
    with event_server() as found:
        yield found


@pytest.fixture(scope="module")
def settings(
    server: EventServer, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    path = server.kubeconfig(tmp_path_factory.mktemp("kube"))
    return {"RBDCRYPT_KUBECONFIG": str(path)}


@pytest.fixture(scope="module")
def world(settings: Mapping[str, str]) -> Iterator[World]:
    """Give a controller and one node; both end with the module."""
    if not os.environ.get("RBDCRYPT_CLUSTERS_FILE"):
        pytest.fail("no Ceph: run this through `hack/test ceph`, or in the lab")
    with (
        machine("node-a", settings) as first,
        contextlib.closing(World(first)) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def second(settings: Mapping[str, str]) -> Iterator[Machine]:
    """Give another node."""
    with machine("node-b", settings) as found:
        yield found


@pytest.fixture(scope="module")
def claims(world: World, server: EventServer) -> Iterator[Claims]:
    """Give claims; no secret of theirs may be in anything that was posted."""
    found = Claims(world, server)
    yield found
    secrets = {
        f"{number}: {name}": value
        for number, each in enumerate(found.secrets)
        for name, value in secrets_of.given(each).items()
    }
    sent = [(f"request {number}", body) for number, body in enumerate(server.bodies)]
    assert Canaries(secrets).found_in(sent) == {}


@pytest.fixture(autouse=True)
def tidy(world: World) -> Iterator[None]:
    """Take away what a test left, whatever became of it."""
    yield
    print(world.logs())  # noqa: T201  # shown for a test that failed
    world.tidy()
