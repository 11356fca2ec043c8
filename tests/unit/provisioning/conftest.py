# SPDX-License-Identifier: Apache-2.0
"""The rules run on the fake here; tests/ceph/provisioning runs them on Ceph."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.provisioning.worlds import FakeWorld


@pytest.fixture
def world() -> Iterator[FakeWorld]:
    """Give an empty place in memory."""
    made = FakeWorld()
    yield made
    made.close()


@pytest.fixture
def wide_world(world: FakeWorld) -> FakeWorld:
    """Give a place with others beside it: here the same one."""
    return world
