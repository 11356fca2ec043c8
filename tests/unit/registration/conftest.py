# SPDX-License-Identifier: Apache-2.0
"""A served CSI socket, and kubelet's plugins_registry beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csi_driver.rpc.health import Health
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.identity import Plugin
from csi_driver.rpc.node import Node
from csi_driver.rpc.registration.offer import Pace
from csi_driver.rpc.registration.offer import offered
from csi_driver.rpc.registration.servicer import Driver
from csi_driver.rpc.registration.standing import Standing
from csi_driver.rpc.server import CsiServer
from csi_driver.rpc.server import Services

NAME = "csi.example.org"
QUICK = Pace(look=0.05, first=0.4, longest=1.6)


class IdleStager:
    """What a Node servicer needs to tell its node id."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"kubelet does not {name} to register a driver")


@dataclasses.dataclass(frozen=True)
class Place:
    """The sockets of one driver; `directory` is kubelet's plugins_registry."""

    endpoint: Path
    directory: Path

    @property
    def socket(self) -> Path:
        return self.directory / f"{NAME}-reg.sock"


type Serve = Callable[..., contextlib.AbstractContextManager[Standing]]


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a place with a short path, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="reg-") as scratch:
        directory = Path(scratch) / "plugins_registry"
        directory.mkdir()
        yield Place(Path(scratch) / "csi.sock", directory)


@pytest.fixture
def csi(place: Place) -> Iterator[CsiServer]:
    """Serve the CSI socket that kubelet calls."""
    services = Services(
        identity=Identity(Plugin(NAME, "1"), Health()),
        node=Node(IdleStager(), "node-7"),
    )
    server = CsiServer(place.endpoint, services)
    server.start()
    yield server
    server.stop(1)


@pytest.fixture
def serve(place: Place, csi: CsiServer) -> Serve:
    """Return what offers the driver to kubelet."""

    @contextlib.contextmanager
    def offering(
        *, endpoint: Path = place.endpoint, socket: Path = place.socket
    ) -> Iterator[Standing]:
        standing = Standing()
        with offered(socket, Driver(NAME, str(endpoint)), standing, QUICK):
            yield standing

    return offering
