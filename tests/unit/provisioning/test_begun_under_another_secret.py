# SPDX-License-Identifier: Apache-2.0
"""A half-made clone, and a next call with another Secret than it was begun with.

The claim's Secret was changed meanwhile, or was the wrong one at first.
"""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import SecretError
from csi_driver.provisioning.requests import CreateRequest
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import THIRD
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.halves import ImpatientWorld
from tests.unit.provisioning.halves import calls_of_create
from tests.unit.provisioning.halves import half_made
from tests.unit.provisioning.halves import remove_volumes
from tests.unit.provisioning.halves import soon
from tests.unit.provisioning.halves import sweep
from tests.unit.provisioning.test_interrupted import interrupted
from tests.unit.provisioning.worlds import FakeWorld


def clone(world: FakeWorld) -> CreateRequest:
    source = volume(world, "source")
    return clone_request(world, source, "one", SIZE, secrets={**OTHER, **SOURCE})


def begun() -> tuple[ImpatientWorld, CreateRequest]:
    """Return a clone that is in `creating`, and the request that began it."""
    return half_made(clone, calls_of_create(clone).index("image.acquire_lock") + 1)


def under(request: CreateRequest, *secrets: dict[str, str]) -> CreateRequest:
    both = {name: value for each in secrets for name, value in each.items()}
    return dataclasses.replace(request, secrets=both)


@pytest.mark.timeout(300)
def test_it_is_begun_anew_wherever_the_first_call_died() -> None:
    calls = calls_of_create(clone)
    for at in range(calls.index("pool.clone_image"), len(calls) - 8, 3):
        world, request = half_made(clone, at)
        if "one" in world.names():
            break
        other = under(request, THIRD, SOURCE)
        made = soon(lambda: world.volumes.create(other))  # noqa: B023
        assert content_of(world, made.volume_id, THIRD) == {"the source's"}
        with pytest.raises(SecretError):
            content_of(world, made.volume_id, OTHER)
        for _ in range(3):
            sweep(world)
        assert len(world.images()) == 2
        assert not list(world.collector.pending())
        for each in world.volumes.list("", 0).volumes:
            assert world.record(each.volume_id).children == ()
        remove_volumes(world)


def test_a_secret_that_does_not_open_the_source_leaves_it_to_the_first_one() -> None:
    world, request = begun()
    before = world.content()
    with pytest.raises(SecretError) as caught:
        world.volumes.create(under(request, THIRD))
    assert "'one' was begun under another Secret" in str(caught.value)
    assert world.content() == before
    made = soon(lambda: world.volumes.create(request))
    assert content_of(world, made.volume_id, OTHER) == {"the source's"}


def test_where_the_source_is_gone_only_the_first_secret_can_finish_it() -> None:
    world, request = begun()
    (source,) = world.volumes.list("", 0).volumes
    world.volumes.delete(source.volume_id)
    with pytest.raises(SecretError) as caught:
        world.volumes.create(under(request, THIRD, SOURCE))
    said = str(caught.value)
    assert "'one' was begun under another Secret" in said
    assert "does not exist" in said or "was deleted" in said
    made = soon(lambda: world.volumes.create(request))
    assert content_of(world, made.volume_id, OTHER) == {"the source's"}


def test_one_that_lives_and_has_the_lock_is_not_disturbed() -> None:
    world = FakeWorld()
    request = clone(world)
    at = calls_of_create(clone).index("image.acquire_lock") + 2
    died, _ = interrupted(world, lambda c: c.volumes.create(request), at)
    assert died  # its lock and its watch stay
    before = world.content()
    with pytest.raises(PendingError, match="is being created by"):
        world.volumes.create(under(request, THIRD, SOURCE))
    assert world.content() == before
