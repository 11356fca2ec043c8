# SPDX-License-Identifier: Apache-2.0
"""The whole driver on the lab's Ceph, its processes made for the test module.

Nothing is called but the sockets: what a test sees is what kubelet and the
sidecars see.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ceph.end_to_end.world import Machine
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import machine


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Give a controller and one node; both end with the module."""
    if not os.environ.get("RBDCRYPT_CLUSTERS_FILE"):
        pytest.fail("no Ceph: run this through `hack/test ceph`, or in the lab")
    with machine("node-a") as first, contextlib.closing(World(first)) as found:
        yield found


@pytest.fixture(scope="module")
def second() -> Iterator[Machine]:
    """Give another node."""
    with machine("node-b") as found:
        yield found


@pytest.fixture(autouse=True)
def tidy(world: World) -> Iterator[None]:
    """Take away what a test left, whatever became of it."""
    yield
    print(world.logs())  # noqa: T201  # shown for a test that failed
    world.tidy()


@pytest.fixture
def place(world: World) -> Path:
    """Give a directory for staging and target paths."""
    return world.first.directory / "pods"
