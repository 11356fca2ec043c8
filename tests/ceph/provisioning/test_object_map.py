# SPDX-License-Identifier: Apache-2.0
"""The rules of tests/unit/provisioning, on real Ceph, and librbd's own limit."""

from __future__ import annotations

import pytest

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.sizes import MOST_MAPPED_OBJECTS
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.values import NewImage
from tests.ceph.provisioning.real import CephWorld
from tests.unit.provisioning.test_object_map import *  # noqa: F403


def test_librbd_makes_no_object_map_beyond_the_limit(world: CephWorld) -> None:
    striping = Striping(4096, 4096, 1)
    size = RawSize((MOST_MAPPED_OBJECTS + 1) * striping.object_size)
    with world.pool() as pool, pytest.raises(InvalidRequestError):
        pool.create_image(NewImage("large", size, striping, DEFAULT_FEATURES))
