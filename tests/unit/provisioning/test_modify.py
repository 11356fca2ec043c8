# SPDX-License-Identifier: Apache-2.0
"""Changing a volume's I/O limits: in librbd's settings, all of it or nothing."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.limits import BANDWIDTH_SETTING
from csi_driver.domain.limits import IOPS_SETTING
from csi_driver.domain.limits import IoLimits
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import MIB
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.worlds import World


def settings(world: World, volume_id: VolumeId) -> dict[str, str]:
    """Return librbd's settings that an image carries."""
    with (
        world.pool() as pool,
        pool.open_raw(volume_id.image_id, read_only=True) as image,
    ):
        return image.settings()


def test_limits_are_set_changed_and_removed(world: World) -> None:
    one = world.create("one").volume_id
    modify = world.volumes.modify
    modify(one, {"iops": "500", "bandwidth": "100Mi"})
    assert settings(world, one) == {
        IOPS_SETTING: "500",
        BANDWIDTH_SETTING: str(100 * MIB),
    }
    assert world.record(one).limits == IoLimits(500, 100 * MIB)
    # What is not named stays; a repeated call changes nothing.
    modify(one, {"iops": "600"})
    before = world.content()
    modify(one, {"iops": "600"})
    modify(one, {})
    assert world.content() == before
    assert settings(world, one)[BANDWIDTH_SETTING] == str(100 * MIB)
    modify(one, {"iops": "0"})
    assert settings(world, one) == {BANDWIDTH_SETTING: str(100 * MIB)}
    modify(one, {"bandwidth": "0"})
    assert settings(world, one) == {}
    assert world.record(one).limits == IoLimits()
    remove_all(world)


@pytest.mark.parametrize(
    "mutable",
    [
        {"iops": "1k"},
        {"iops": "-1"},
        {"iops": ""},
        {"iops": str(1 << 63)},
        {"bandwidth": "1.5Mi"},
        {"bandwidth": "fast"},
        {"bandwidth": f"{1 << 62}k"},
        {"iops": "100", "bandwidht": "1Mi"},
        {"iops": "100", "bandwidth": "x"},
        {"IOPS": "100"},
    ],
)
def test_what_is_not_understood_changes_nothing(
    world: World, mutable: dict[str, str]
) -> None:
    one = world.create("one").volume_id
    world.volumes.modify(one, {"iops": "7"})
    before = world.content()
    with pytest.raises(InvalidRequestError, match="mutable parameter"):
        world.volumes.modify(one, mutable)
    request = dataclasses.replace(world.plaintext("two", SIZE), mutable=mutable)
    with pytest.raises(InvalidRequestError, match="mutable parameter"):
        world.volumes.create(request)
    assert world.content() == before


@pytest.mark.parametrize("plain", [True, False])
def test_a_new_volume_has_its_limits_at_once(world: World, *, plain: bool) -> None:
    request = world.plaintext("one", SIZE) if plain else world.request("one", SIZE)
    request = dataclasses.replace(request, mutable={"iops": "9"})
    made = world.volumes.create(request)
    assert settings(world, made.volume_id) == {IOPS_SETTING: "9"}
    assert world.record(made.volume_id).limits == IoLimits(9)
    assert world.volumes.create(request) == made
    # Limits change in a volume's life: they are no part of what it is.
    world.volumes.modify(made.volume_id, {"iops": "10"})
    assert world.volumes.create(request) == made
    assert settings(world, made.volume_id) == {IOPS_SETTING: "10"}
    with pytest.raises(AlreadyExistsError):
        world.volumes.create(
            dataclasses.replace(
                request, parameters={**request.parameters, "objectSize": "65536"}
            )
        )
    remove_all(world)


def test_an_interrupted_change_is_brought_in_line_by_the_next(world: World) -> None:
    one = world.create("one").volume_id
    world.change(one, limits=IoLimits(500, 100))
    world.volumes.modify(one, {"iops": "500"})
    assert settings(world, one) == {IOPS_SETTING: "500", BANDWIDTH_SETTING: "100"}


def test_what_is_not_there_cannot_be_limited(world: World) -> None:
    one = world.create("one").volume_id
    with pytest.raises(NotFoundError):
        world.volumes.modify(VolumeId(one.location, "0123456789ab"), {"iops": "1"})
    world.change(one, state=VolumeState.CREATING)
    with pytest.raises(PendingError):
        world.volumes.modify(one, {"iops": "1"})
    world.change(one, state=VolumeState.READY)
    world.snapshot(one, "snap")
    world.volumes.delete(one)
    before = world.content()
    with pytest.raises(NotFoundError):
        world.volumes.modify(one, {"iops": "1"})
    assert world.content() == before
    remove_all(world)


def test_limits_do_not_disturb_who_has_the_volume(world: World) -> None:
    one = world.create("one").volume_id
    with world.pool() as pool, pool.open_raw(one.image_id) as image:
        image.acquire_lock()
        world.volumes.modify(one, {"iops": "5"})
        assert image.settings() == {IOPS_SETTING: "5"}
        assert image.lock_owner() is not None
