# SPDX-License-Identifier: Apache-2.0
"""Sizes that librbd's object map does not cover: refused, never promised."""

from __future__ import annotations

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import MOST_MAPPED_OBJECTS
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from tests.unit.provisioning.worlds import World

BLOCK = Capability(AccessMode.SINGLE_NODE_WRITER, block=True)
LARGEST = MOST_MAPPED_OBJECTS * 4 * MIB - HEADER_ROOM


def test_the_last_object_counts() -> None:
    for count in (1, 3, 1024):
        striping = Striping(4 * MIB, 4 * MIB, count)
        periods = MOST_MAPPED_OBJECTS // count
        striping.require_mappable(RawSize(periods * striping.period))
        with pytest.raises(SizeError, match="imageFeatures"):
            striping.require_mappable(RawSize(periods * striping.period + BLOCK_SIZE))


@pytest.mark.parametrize(
    ("size", "object_size"),
    [(LARGEST + BLOCK_SIZE, 4 * MIB), (1 << 41, BLOCK_SIZE)],
)
def test_a_volume_of_more_objects_is_out_of_range(
    world: World, size: int, object_size: int
) -> None:
    request = world.request("one", size, capability=BLOCK, objectSize=str(object_size))
    with pytest.raises(SizeError, match="object map"):
        world.volumes.create(request)
    assert world.content() == {}


def test_growing_beyond_the_map_is_not_promised(world: World) -> None:
    mapped = world.create("mapped")
    before = world.content()
    with pytest.raises(SizeError, match="object map"):
        world.volumes.expand(mapped.volume_id, CapacityRange(LARGEST + BLOCK_SIZE))
    assert world.content() == before
    without = world.volumes.create(
        world.request(
            "without",
            secrets={},
            encrypted="false",
            imageFeatures="layering,exclusive-lock",
        )
    )
    wanted = CapacityRange(LARGEST + BLOCK_SIZE)
    grown = world.volumes.expand(without.volume_id, wanted)
    assert grown.size.count == LARGEST + BLOCK_SIZE
