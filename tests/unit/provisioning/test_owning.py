# SPDX-License-Identifier: Apache-2.0
"""An administrator's command keeps the lock while others' work goes on under it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NoReturn

import pytest

from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.record import Record
from csi_driver.images.port import Pool
from csi_driver.provisioning import owning
from csi_driver.provisioning.interrupting import CLOSING
from csi_driver.provisioning.interrupting import Interrupts
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


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Hear SIGINT also where the whole run is a shell's background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def come(signals: Sequence[signal.Signals]) -> None:
    for each in signals:
        os.kill(os.getpid(), each)


@pytest.mark.parametrize("first", SIGNALS)
def test_signals_end_it_in_order_and_once(
    world: FakeWorld, monkeypatch: pytest.MonkeyPatch, first: signal.Signals
) -> None:
    """The first one ends the work, none the wait for that of others."""
    monkeypatch.setattr(owning, "_STEP", 0.01)
    record = world.record(clone(world, volume(world)))
    stored = world.store.pool("rbd").namespaces[""].by_id(record.image_id)
    before = [signal.getsignal(each) for each in SIGNALS]
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        assert stored.lock is not None
        if len(told) == 1:
            come(SIGNALS)
        if len(told) == 1 + len(SIGNALS):
            for heard in tuple(stored.listeners):
                heard(COMPLETE)
        raise BrokenPipeError

    def work() -> None:
        with (
            world.pool() as pool,
            unlocked(record, SECRET) as keys,
            owning.owned(pool, keys, instead="", say=say),
        ):
            for heard in tuple(stored.listeners):
                heard(FLATTEN)
            come([first])

    with pytest.raises(KeyboardInterrupt):
        work()
    assert all("another client asked for" in text for text in told)
    assert len(told) == 1 + len(SIGNALS)
    assert stored.lock is None
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_signal_while_it_waits_does_not_end_the_wait(
    world: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owning, "_STEP", 0.01)
    record = world.record(clone(world, volume(world)))
    stored = world.store.pool("rbd").namespaces[""].by_id(record.image_id)
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        if len(told) == 1:
            come([signal.SIGTERM])
        for heard in tuple(stored.listeners):
            heard(COMPLETE)

    with (
        world.pool() as pool,
        unlocked(record, SECRET) as keys,
        owning.owned(pool, keys, instead="", say=say),
    ):
        for heard in tuple(stored.listeners):
            heard(PROGRESS)
    assert len(told) == 2
    assert told[1].startswith("SIGTERM: waiting")


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    told: list[str] = []
    try:
        with Interrupts(told.append) as interrupts:
            come([signal.SIGHUP])
            interrupts.hold(CLOSING)
            come([signal.SIGHUP, signal.SIGTERM])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert told == [f"SIGTERM: {CLOSING}"]


def test_others_work_under_anothers_lock_is_not_waited_for(world: FakeWorld) -> None:
    record = world.record(clone(world, volume(world)))
    stored = world.store.pool("rbd").namespaces[""].by_id(record.image_id)
    with (
        world.pool() as pool,
        world.pool() as other,
        unlocked(record, SECRET) as keys,
        keys.open(other) as content,
    ):
        content.image.acquire_lock()
        acquire = type(content.image).acquire_lock

        def work() -> None:
            with owning.owned(pool, keys, instead="unstage it"):
                pytest.fail("it has the lock")

        def heard_before(image: object) -> None:
            for heard in tuple(stored.listeners):
                heard(PROGRESS)
            acquire(image)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(content.image), "acquire_lock", heard_before)
            with pytest.raises(InUseError, match="unstage it"):
                work()
