# SPDX-License-Identifier: Apache-2.0
"""A RADOS namespace of its own for each test, and what makes volumes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ceph.administration.making import Maker
from tests.ceph.provisioning.real import CephWorld


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[Maker]:
    world = CephWorld()
    world.begin()
    made = Maker(world, tmp_path)
    yield made
    made.close()
    world.end()
