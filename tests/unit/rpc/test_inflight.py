# SPDX-License-Identifier: Apache-2.0
"""The guard, against a model and against threads."""

from __future__ import annotations

import concurrent.futures
import threading

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine
from hypothesis.stateful import invariant
from hypothesis.stateful import rule

from csi_driver.domain.errors import PendingError
from csi_driver.rpc.inflight import InFlight

KEYS = st.sampled_from(["a", "b", "c", "volume_id 'a'"])


class GuardMachine(RuleBasedStateMachine):
    """Enter and leave in any order; a set is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = InFlight()
        self.model: dict[str, str] = {}

    @rule(key=KEYS, method=st.sampled_from(["DeleteVolume", "CreateVolume"]))
    def enter(self, key: str, method: str) -> None:
        if key in self.model:
            with pytest.raises(PendingError, match=self.model[key]):
                self.guard.enter(key, method)
        else:
            self.guard.enter(key, method)
            self.model[key] = method

    @rule(key=KEYS)
    def leave(self, key: str) -> None:
        if key in self.model:
            self.guard.leave(key)
            del self.model[key]
        else:
            with pytest.raises(KeyError):
                self.guard.leave(key)

    @invariant()
    def same_keys(self) -> None:
        assert self.guard.keys() == set(self.model)


TestGuard = GuardMachine.TestCase


def test_of_many_threads_one_gets_the_key() -> None:
    guard, barrier = InFlight(), threading.Barrier(16)

    def enter() -> bool:
        barrier.wait()
        try:
            guard.enter("volume", "NodeStageVolume")
        except PendingError:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = [pool.submit(enter) for _ in range(16)]
    assert sum(result.result() for result in results) == 1
