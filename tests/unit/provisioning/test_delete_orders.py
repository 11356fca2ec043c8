# SPDX-License-Identifier: Apache-2.0
"""A family deleted in every order: what is left works, and in the end nothing is."""

from __future__ import annotations

import itertools

import pytest

from tests.unit.provisioning.trees import MEMBERS
from tests.unit.provisioning.trees import Tree
from tests.unit.provisioning.worlds import FakeWorld


@pytest.mark.timeout(300)
def test_all_orders_of_a_plaintext_family() -> None:
    for order in itertools.permutations(MEMBERS):
        world = FakeWorld()
        tree = Tree(world, "one", encrypted=False)
        for member in order:
            tree.delete(member)
            world.collect()
            tree.check()
        world.collect_all()
        assert world.content() == {}, order
        world.close()


@pytest.mark.parametrize("order", [MEMBERS, MEMBERS[::-1], MEMBERS[3:] + MEMBERS[:3]])
def test_some_orders_of_an_encrypted_family(
    world: FakeWorld, order: tuple[str, ...]
) -> None:
    tree = Tree(world, "one", encrypted=True)
    for member in order:
        tree.delete(member)
        world.collect()
        tree.check()
    world.collect_all()
    assert world.content() == {}
