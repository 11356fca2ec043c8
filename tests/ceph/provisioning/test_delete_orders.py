# SPDX-License-Identifier: Apache-2.0
"""Encrypted families deleted in 24 orders on real Ceph, several at once."""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.ceph.provisioning.real import CephWorld
from tests.unit.provisioning.trees import MEMBERS
from tests.unit.provisioning.trees import Tree

ORDERS = 24
AT_ONCE = 2


@pytest.mark.timeout(300)
def test_many_orders_of_an_encrypted_family(world: CephWorld) -> None:
    every = list(itertools.permutations(MEMBERS))
    # One process collects in one thread alone: its patience knows it as one.
    collecting = threading.Lock()
    chosen = random.Random(4).sample(every, ORDERS)  # noqa: S311  # no secret

    def run(number: int) -> None:
        tree = Tree(world, f"tree {number}", encrypted=True)
        for member in chosen[number]:
            tree.delete(member)
            with collecting:
                world.collect()
            tree.check()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(run, range(ORDERS)))
    world.collect_all()
    assert world.names() == []
    assert world.content() == {}
