# SPDX-License-Identifier: Apache-2.0
"""What a record says of snapshots, children and origin: written, read, damaged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from csi_driver.domain.lineage import ChildIntent
from csi_driver.domain.lineage import Origin
from csi_driver.domain.snapshots import SNAPSHOT_PREFIX
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import new_snapshot_name
from tests.unit.domain.strategies import CHILDREN
from tests.unit.domain.strategies import SNAPSHOTS
from tests.unit.domain.strategies import TEXTS

DAMAGE = (LookupError, TypeError, ValueError)
WRONG: list[Any] = [None, 1.5, {}, [1], True, -1]


@given(SNAPSHOTS)
def test_a_snapshot_comes_back_as_it_was(snapshot: Snapshot) -> None:
    assert Snapshot.from_json_object(snapshot.to_json_object()) == snapshot
    assert snapshot.internal == (snapshot.name == "")


@given(CHILDREN)
def test_an_intent_comes_back_as_it_was(child: ChildIntent) -> None:
    assert ChildIntent.from_json_object(child.to_json_object()) == child


@given(TEXTS)
def test_an_origin_comes_back_as_it_was(source: str) -> None:
    origin = Origin(source)
    assert Origin.from_json_object(origin.to_json_object()) == origin


@pytest.mark.parametrize(
    "part",
    [
        Snapshot("name", "csi-snap-1"),
        ChildIntent("image", "csi-snap-1", "pvc-1", 1, ""),
        Origin("v1:c:1::10ab"),
    ],
)
def test_a_field_of_another_type_is_damage(part: Any) -> None:
    fields = part.to_json_object()
    for name in fields:
        for wrong in WRONG:
            with pytest.raises(DAMAGE):
                type(part).from_json_object({**fields, name: wrong})
        with pytest.raises(DAMAGE):
            type(part).from_json_object({k: v for k, v in fields.items() if k != name})


def test_snapshot_names_are_fresh_and_the_drivers() -> None:
    names = {new_snapshot_name() for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(SNAPSHOT_PREFIX) for name in names)
