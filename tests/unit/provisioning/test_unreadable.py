# SPDX-License-Identifier: Apache-2.0
"""A collector that may not, or cannot, read the record of one image.

A pool that is no longer used is taken from the caps of the driver's Ceph user;
what was cloned from there, and flattened since, goes on, and names it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InternalError
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from tests.unit.provisioning.halves import ImpatientWorld
from tests.unit.provisioning.halves import all_images
from tests.unit.provisioning.halves import half_made
from tests.unit.provisioning.halves import sweep
from tests.unit.provisioning.test_abandoned_races import clone_elsewhere
from tests.unit.provisioning.test_abandoned_races import last_half
from tests.unit.provisioning.worlds import Controller


class Unreadable(Steps):
    """Metadata of one image cannot be read."""

    def __init__(self, image_id: str, error: DriverError) -> None:
        super().__init__(Fault(0))
        self._image_id = image_id
        self._error = error

    def run[**P, R](
        self, name: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        if name == "pool.read_metadata" and args[0] == self._image_id:
            raise self._error
        return super().run(name, call, *args, **kwargs)


def without(world: ImpatientWorld, image_id: str, error: DriverError) -> Controller:
    """Return a controller that cannot read the record of one image."""
    return world.controller(
        FaultyConnector(world.connector, Unreadable(image_id, error))
    )


FORBIDDEN = ForbiddenError("Operation not permitted")


def test_a_clone_of_it_keeps_no_others_from_being_given_up_and_can_be_deleted() -> None:
    world = ImpatientWorld()
    request = clone_elsewhere(world)
    (source,) = world.volumes.list("", 0).volumes
    made = world.volumes.create(request)
    with world.pool_of(made.volume_id) as pool:
        Directory(pool).claim(Entry("two", "csi-vol-two"))
    controller = without(world, source.volume_id.image_id, FORBIDDEN)
    sweep(world, controller)
    with world.pool_of(made.volume_id) as pool:
        assert Directory(pool).find("two") is None
        world.record(made.volume_id).require_ready()
        world.volumes.delete(made.volume_id)
        sweep(world, controller)
        assert not list(world.collector.pending())
    assert world.names() == ["source"]
    assert len(all_images(world)) == 1


def test_a_clone_that_is_given_up_lets_go_once_the_source_can_be_read() -> None:
    world, request = half_made(clone_elsewhere, last_half(clone_elsewhere))
    (source,) = world.volumes.list("", 0).volumes
    with capture_logs() as logs:
        sweep(world, without(world, source.volume_id.image_id, FORBIDDEN))
    told = [each for each in logs if each["event"] == "source not let go"]
    assert [each["error"] for each in told] == [str(FORBIDDEN)]
    assert len(all_images(world)) == 1
    assert world.record(source.volume_id).children
    made = world.volumes.create(request)
    assert world.record(source.volume_id).children == ()
    world.volumes.delete(made.volume_id)
    world.collect_all()
    world.volumes.delete(source.volume_id)
    world.collect_all()
    assert world.content() == {}


@pytest.mark.parametrize("error", [FORBIDDEN, InternalError("Input/output error")])
def test_a_volume_whose_record_cannot_be_read_keeps_no_others(
    error: DriverError,
) -> None:
    world = ImpatientWorld()
    made = world.create("one")
    with world.pool() as pool:
        Directory(pool).claim(Entry("two", "csi-vol-two"))
    with capture_logs() as logs:
        sweep(world, without(world, made.volume_id.image_id, error))
    assert world.names() == ["one"]
    with world.pool() as pool:
        assert Directory(pool).find("two") is None
    warnings = [each for each in logs if each["log_level"] == "warning"]
    assert {(each["volume"], each["error"]) for each in warnings} == {
        ("one", str(error))
    }
