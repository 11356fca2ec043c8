# SPDX-License-Identifier: Apache-2.0
"""Snapshots are listed page by page."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import VolumeId
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.snapshots import listed
from tests.unit.provisioning.worlds import World


def test_listing_pages_through_all_places(wide_world: World) -> None:
    world = wide_world
    ids = []
    for number, place in enumerate([{}, *world.elsewhere()]):
        one = plain_volume(world, f"volume {number}", parameters=place)
        ids += [world.snapshot(one, f"{number}.{n}") for n in range(3)]
        assert len(listed(world, one)) == 3
    pages, token = [], ""
    while True:
        page = world.volumes.list_snapshots(token, 2)
        pages.append([each.snapshot_id for each in page.snapshots])
        token = page.next_token
        if not token:
            break
    assert [len(each) for each in pages] == [2, 2, 2, 2, 1]
    found = [str(each) for page in pages for each in page]
    assert sorted(found) == sorted(map(str, ids))
    for bad in ("x", "99.", "1.2.3", "-1."):
        with pytest.raises(PendingError, match="starting_token"):
            world.volumes.list_snapshots(bad, 2)
    remove_all(world)


def test_listing_one_volumes_snapshots_by_pages(world: World) -> None:
    one = plain_volume(world)
    ids = [world.snapshot(one, f"snap {n}") for n in range(3)]
    first = world.volumes.list_snapshots("", 2, one)
    assert [each.snapshot_id for each in first.snapshots] == ids[:2]
    world.volumes.delete_snapshot(ids[1])
    rest = world.volumes.list_snapshots(first.next_token, 2, one)
    assert [each.snapshot_id for each in rest.snapshots] == ids[2:]
    assert rest.next_token == ""
    nobody = VolumeId(one.location, "0123456789ab")
    elsewhere = dataclasses.replace(one.location, cluster="another")
    no_pool = dataclasses.replace(one.location, pool_id=9999)
    for other in (nobody, VolumeId(elsewhere, "ab"), VolumeId(no_pool, "ab")):
        assert listed(world, other) == []
    with pytest.raises(PendingError, match="starting_token"):
        world.volumes.list_snapshots("x", 2, one)
