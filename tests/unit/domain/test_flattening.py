# SPDX-License-Identifier: Apache-2.0
"""The flatten policies: what they want, and how deep they let chains grow."""

from __future__ import annotations

import pytest
from hypothesis import given

from csi_driver.domain.chain import DEEPEST_CHAIN
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.flattening import HARD_DEPTH
from csi_driver.domain.flattening import SOFT_DEPTH
from csi_driver.domain.flattening import FlattenPolicy
from csi_driver.domain.flattening import FlattenWork
from tests.unit.domain.strategies import FLATTENS

NEVER, DEPTH, ALWAYS = FlattenPolicy.NEVER, FlattenPolicy.DEPTH, FlattenPolicy.ALWAYS


@pytest.mark.parametrize(
    ("policy", "first"),
    [(NEVER, DEEPEST_CHAIN), (DEPTH, SOFT_DEPTH), (ALWAYS, 1)],
)
def test_from_which_depth_a_clone_is_flattened(
    policy: FlattenPolicy,
    first: int,
) -> None:
    wanted = [policy.wants(ancestors) for ancestors in range(DEEPEST_CHAIN)]
    assert wanted == [ancestors >= first for ancestors in range(DEEPEST_CHAIN)]


@pytest.mark.parametrize(
    ("policy", "most"),
    [(NEVER, DEEPEST_CHAIN - 1), (DEPTH, HARD_DEPTH), (ALWAYS, DEEPEST_CHAIN - 1)],
)
def test_the_deepest_clone_of_a_policy(policy: FlattenPolicy, most: int) -> None:
    for ancestors in range(most + 1):
        policy.require_possible(ancestors, "volume 'pvc-1'")
    with pytest.raises(PreconditionError, match=rf"pvc-1.*{most + 1}.*flatten"):
        policy.require_possible(most + 1, "volume 'pvc-1'")


def test_every_allowed_clone_can_be_loaded() -> None:
    assert SOFT_DEPTH < HARD_DEPTH < DEEPEST_CHAIN


@given(FLATTENS)
def test_work_comes_back_as_it_was(work: FlattenWork) -> None:
    assert FlattenWork.from_json_object(work.to_json_object()) == work
