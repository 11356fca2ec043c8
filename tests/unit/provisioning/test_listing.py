# SPDX-License-Identifier: Apache-2.0
"""ListVolumes: pages, tombstones and half-made volumes among them, tokens."""

from __future__ import annotations

import pytest

from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import new_image_name
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from tests.unit.provisioning.worlds import World


def paged(world: World, limit: int) -> list[str]:
    """Return all ids, page by page, each page full but the last."""
    found: list[str] = []
    token = ""
    while True:
        page = world.volumes.list(token, limit)
        found += [str(each.volume_id) for each in page.volumes]
        assert len(page.volumes) <= limit
        token = page.next_token
        if not token:
            return found
        assert len(page.volumes) == limit


def test_an_empty_place_lists_nothing(world: World) -> None:
    page = world.volumes.list("", 0)
    assert (page.volumes, page.next_token) == ((), "")


def test_pages_show_each_ready_volume_once(world: World) -> None:
    made = [world.create(f"volume-{number}") for number in range(9)]
    for each in made[::3]:
        world.volumes.delete(each.volume_id)
    with world.pool() as pool:
        directory = Directory(pool)
        # Interrupted right after the claim, and with an image that is gone.
        for number in range(3):
            directory.claim(Entry(f"half-{number}", new_image_name()))
        directory.claim(Entry("vanished", new_image_name(), "123abc456def"))
    expected = {str(each.volume_id) for each in made} - {
        str(each.volume_id) for each in made[::3]
    }
    for limit in (1, 2, 5, 6, 7, 1000):
        found = paged(world, limit)
        assert len(found) == len(expected)
        assert set(found) == expected
    whole = world.volumes.list("", 0)
    assert {str(each.volume_id) for each in whole.volumes} == expected
    assert whole.next_token == ""
    # Collecting changes nothing about it.
    world.collect_all()
    assert set(paged(world, 2)) == expected


def test_a_volume_deleted_between_two_pages_is_no_error(world: World) -> None:
    for number in range(4):
        world.create(f"volume-{number}")
    first = world.volumes.list("", 2)
    assert first.next_token
    for each in first.volumes:
        world.volumes.delete(each.volume_id)
    world.collect_all()
    second = world.volumes.list(first.next_token, 0)
    ids = {each.volume_id for each in (*first.volumes, *second.volumes)}
    assert len(second.volumes) == 2
    assert len(ids) == 4


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "0",
        "0.zz",
        "-1.",
        "99999.",
        "1.0.0",
        "0." + "a" * 37,
        "0.\n",
        "\ud800",
        "٣.",
    ],
)
def test_foreign_tokens_are_aborted(world: World, token: str) -> None:
    world.create("one")
    with pytest.raises(PendingError, match="starting_token"):
        world.volumes.list(token, 1)
