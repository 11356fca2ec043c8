# SPDX-License-Identifier: Apache-2.0
"""A server over memory on a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.nbd.server import Server
from csi_driver.testing.nbd_client import Dialer
from csi_driver.testing.nbd_client import serving
from tests.unit.nbd.memory import Memory
from tests.unit.nbd.memory import memory


@pytest.fixture
def backend() -> Memory:
    return memory()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def dial(path: Path) -> Iterator[Dialer]:
    with Dialer(path) as dial:
        yield dial


@pytest.fixture
def server(backend: Memory, path: Path) -> Iterator[Server]:
    with serving(backend, path) as server:
        yield server
