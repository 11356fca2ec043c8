# SPDX-License-Identifier: Apache-2.0
"""An administrator's command keeps the lock while others' work goes on under it."""

from __future__ import annotations

from typing import NoReturn

import pytest

from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.record import Record
from csi_driver.images.port import Pool
from csi_driver.provisioning import owning
from csi_driver.provisioning.unlocking import unlocked
from tests.unit.images.test_foreign import COMPLETE
from tests.unit.images.test_foreign import FLATTEN
from tests.unit.images.test_foreign import PROGRESS
from tests.unit.provisioning.family import clone
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import FakeWorld


def own(world: FakeWorld, pool: Pool, record: Record, *payloads: bytes) -> list[str]:
    """Fail while the lock is held, after others said that; return what is told."""
    told: list[str] = []
    space = world.store.pool("rbd").namespaces[""]
    stored = space.by_id(record.image_id)

    def say(text: str) -> None:
        told.append(text)
        assert stored.lock is not None
        for heard in tuple(stored.listeners):
            heard(COMPLETE)

    def work() -> NoReturn:
        with (
            unlocked(record, SECRET) as keys,
            owning.owned(pool, keys, instead="", say=say),
        ):
            for payload in payloads:
                for heard in tuple(stored.listeners):
                    heard(payload)
            raise PreconditionError("ours")

    with pytest.raises(PreconditionError, match="ours"):
        work()
    assert stored.listeners == []
    assert stored.lock is None
    return told


@pytest.mark.parametrize("begin", [FLATTEN, PROGRESS], ids=["asked", "going on"])
def test_another_clients_flatten_is_waited_for(
    world: FakeWorld, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owning, "_STEP", 0.01)
    made = clone(world, volume(world))
    record = world.record(made)
    with world.pool() as pool:
        (text,) = own(world, pool, record, begin)
        assert "another client asked for" in text
        assert own(world, pool, record) == []
        assert own(world, pool, record, begin, COMPLETE) == []
