# SPDX-License-Identifier: Apache-2.0
"""The deepest chain that librbd takes: sixteen images, each under its own key."""

from __future__ import annotations

import pytest

from csi_driver.domain.errors import PreconditionError
from tests.unit.provisioning.family import clone
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import World


def test_the_deepest_chain_loads(world: World) -> None:
    last = volume(world, "0")
    first = last
    for number in range(1, 16):
        last = clone(world, last, str(number))
    assert world.record(last).ancestors == 15
    assert content_of(world, last) == {"the source's"}
    for source in (last, world.snapshot(last, "snap")):
        with pytest.raises(PreconditionError, match="16 images below"):
            clone(world, source, "16")
    assert content_of(world, first) == {"the source's"}
    remove_all(world)
