# SPDX-License-Identifier: Apache-2.0
"""The same rules as in tests/unit/provisioning, on real Ceph, and more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ceph.provisioning.real import CephWorld


@pytest.fixture
def world() -> Iterator[CephWorld]:
    """Give an empty RADOS namespace; all of it is removed at the end."""
    made = CephWorld()
    made.begin()
    yield made
    made.end()


@pytest.fixture
def wide_world() -> Iterator[CephWorld]:
    """Give a place with others beside it, in its pool and in another one."""
    made = CephWorld(wide=True)
    made.begin()
    yield made
    made.end()
