# SPDX-License-Identifier: Apache-2.0
"""Events that are posted to a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.events.world import World
from tests.unit.kube.event_server import EventServer
from tests.unit.kube.event_server import event_server


@pytest.fixture
def server() -> Iterator[EventServer]:
    with event_server() as found:
        yield found


@pytest.fixture
def world(
    server: EventServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    found = World(server, tmp_path)
    found.events.start()
    yield found
    assert found.events.close(10)
    found.api.close()
