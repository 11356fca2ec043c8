# SPDX-License-Identifier: Apache-2.0
"""The pool of payload buffers keeps within its budget."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.nbd.buffers import HEADER_AT
from csi_driver.nbd.buffers import PAGE
from csi_driver.nbd.buffers import Slot
from csi_driver.nbd.buffers import SlotPool
from csi_driver.nbd.protocol.errors import LocalProtocolError

MIB = 1 << 20
BUDGET = 40 * MIB


def test_the_address_is_where_the_payload_is() -> None:
    slot = Slot(4096)
    ctypes.memmove(slot.address, b"payload", 7)
    assert bytes(slot.payload(7)) == b"payload"
    assert bytes(slot.memory[PAGE : PAGE + 7]) == b"payload"
    assert slot.address % PAGE == 0
    assert HEADER_AT == PAGE - 16


def test_a_slot_is_used_again() -> None:
    pool = SlotPool(BUDGET)
    first = pool.acquire(4096)
    assert first is not None
    pool.release(first)
    assert pool.acquire(1) is first


def test_nothing_is_given_beyond_the_budget() -> None:
    pool = SlotPool(BUDGET)
    large = pool.acquire(32 * MIB)
    assert large is not None
    assert pool.acquire(16 * MIB) is None
    assert pool.acquire(4 * MIB) is not None
    pool.release(large)
    assert pool.acquire(16 * MIB) is not None


def test_kept_slots_make_room_for_what_is_wanted() -> None:
    pool = SlotPool(BUDGET, kept=BUDGET)
    small = [pool.acquire(MIB) for _ in range(30)]
    for slot in small:
        assert slot is not None
        pool.release(slot)
    assert pool.mapped == 30 * (MIB + PAGE)
    assert pool.acquire(32 * MIB) is not None
    assert pool.mapped <= BUDGET


def test_little_is_kept() -> None:
    pool = SlotPool(BUDGET, kept=4 * MIB)
    slot = pool.acquire(32 * MIB)
    assert slot is not None
    pool.release(slot)
    assert pool.mapped == 0


def test_a_budget_has_to_hold_the_largest_request() -> None:
    with pytest.raises(LocalProtocolError):
        SlotPool(32 * MIB)
    with pytest.raises(LocalProtocolError):
        SlotPool(BUDGET).acquire(32 * MIB + 1)


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([4096, 65536, MIB, 7 * MIB, 32 * MIB]))
    )
)
def test_the_account_is_always_right(steps: list[tuple[bool, int]]) -> None:
    pool = SlotPool(BUDGET, kept=8 * MIB)
    used: list[Slot] = []
    for take, size in steps:
        if take:
            slot = pool.acquire(size)
            if slot is not None:
                assert slot.capacity >= size
                assert slot not in used
                used.append(slot)
            else:
                assert pool.used + pool.cost_of(size) > BUDGET
        elif used:
            pool.release(used.pop(0))
        assert pool.used == sum(each.cost for each in used)
        assert pool.used <= pool.mapped <= BUDGET
    for slot in used:
        pool.release(slot)
    pool.close()
    assert pool.used == pool.mapped == 0
