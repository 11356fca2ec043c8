# SPDX-License-Identifier: Apache-2.0
"""Compare-and-set on image metadata and on omaps: nothing is ever lost."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import NotFoundError
from csi_driver.images.port import Ceph
from csi_driver.images.port import Pool
from tests.contract.images.worlds import NAMESPACE
from tests.contract.images.worlds import POOL
from tests.contract.images.worlds import MakeImage
from tests.contract.images.worlds import World
from tests.contract.images.worlds import id_of
from tests.contract.images.worlds import make_clone
from tests.contract.images.worlds import make_snapshot
from tests.contract.images.worlds import remove_snapshot

KEY = ".rbdcrypt"
THREADS = 4
ROUNDS = 12
UNSTORABLE = ["", "nul\0inside", "höhe"]


@pytest.fixture
def omap(world: World, pool: Pool) -> Iterator[str]:
    """Name an object of this test; it is removed again."""
    name = f"contract-{uuid.uuid4()}"
    yield name
    world.remove_object(pool, name)


def test_metadata_changes_from_what_it_is(pool: Pool, make_image: MakeImage) -> None:
    image_id = id_of(pool, make_image())
    assert pool.read_metadata(image_id, KEY) is None
    pool.swap_metadata(image_id, KEY, None, "one")
    assert pool.read_metadata(image_id, KEY) == "one"
    for wrong in (None, "", "On", "one ", "two"):
        with pytest.raises(ConflictError):
            pool.swap_metadata(image_id, KEY, wrong, "three")
    assert pool.read_metadata(image_id, KEY) == "one"
    pool.swap_metadata(image_id, KEY, "one", "two")
    assert pool.read_metadata(image_id, KEY) == "two"
    assert pool.read_metadata(image_id, "other") is None


def test_metadata_of_an_absent_image_is_not_found(pool: Pool) -> None:
    with pytest.raises(NotFoundError):
        pool.read_metadata("abcdef0123", KEY)
    for old in (None, "old"):
        with pytest.raises(NotFoundError):
            pool.swap_metadata("abcdef0123", KEY, old, "new")
    with pytest.raises(NotFoundError):  # and the attempt made no image of it
        pool.read_metadata("abcdef0123", KEY)


def test_metadata_goes_with_its_image(pool: Pool, make_image: MakeImage) -> None:
    name = make_image()
    image_id = id_of(pool, name)
    pool.swap_metadata(image_id, KEY, None, "one")
    pool.remove_image(name)
    with pytest.raises(NotFoundError):
        pool.read_metadata(image_id, KEY)
    with pytest.raises(NotFoundError):
        pool.swap_metadata(image_id, KEY, "one", "two")


def test_large_metadata_is_whole(pool: Pool, make_image: MakeImage) -> None:
    image_id = id_of(pool, make_image())
    large = "x" * (256 * 1024)
    pool.swap_metadata(image_id, KEY, None, large)
    assert pool.read_metadata(image_id, KEY) == large
    with pytest.raises(ConflictError):
        pool.swap_metadata(image_id, KEY, large[:-1], "small")
    pool.swap_metadata(image_id, KEY, large, "small")


def test_a_clone_takes_over_no_record(
    pool: Pool,
    make_image: MakeImage,
    new_name: Callable[[], str],
) -> None:
    name, clone = make_image(), new_name()
    pool.swap_metadata(id_of(pool, name), KEY, None, "the parent's")
    pool.swap_metadata(id_of(pool, name), "note", None, "copied")
    make_snapshot(pool, name, "s")
    make_clone(pool, name, "s", clone)
    assert pool.read_metadata(id_of(pool, clone), KEY) is None
    assert pool.read_metadata(id_of(pool, clone), "note") == "copied"
    remove_snapshot(pool, name, "s")


@pytest.mark.parametrize("value", UNSTORABLE)
def test_what_librbd_would_mangle_is_not_stored(
    pool: Pool,
    make_image: MakeImage,
    omap: str,
    value: str,
) -> None:
    image_id = id_of(pool, make_image())
    with pytest.raises(InternalError):
        pool.swap_metadata(image_id, KEY, None, value)
    with pytest.raises(InternalError):
        pool.swap_entries(omap, expect={}, put={"k": value})
    assert pool.read_metadata(image_id, KEY) is None
    assert pool.read_entry(omap, "k") is None


def test_an_absent_object_is_empty(pool: Pool, omap: str) -> None:
    assert pool.read_entry(omap, "k") is None
    assert pool.read_entries(omap, prefix="") == []


def test_entries_change_together_or_not_at_all(pool: Pool, omap: str) -> None:
    pool.swap_entries(omap, expect={"a": None}, put={"a": "1", "b": "2"})
    assert pool.read_entry(omap, "a") == "1"
    for expect in ({"a": None}, {"a": "1", "b": "x"}, {"c": "1"}, {"a": ""}):
        with pytest.raises(ConflictError):
            pool.swap_entries(omap, expect=expect, put={"c": "3"}, remove=("a",))
    assert pool.read_entries(omap, prefix="") == [("a", "1"), ("b", "2")]
    pool.swap_entries(
        omap,
        expect={"a": "1", "c": None},
        put={"c": "1"},
        remove=("a", "never-there"),
    )
    assert pool.read_entries(omap, prefix="") == [("b", "2"), ("c", "1")]


def test_an_expectation_alone_is_checked(pool: Pool, omap: str) -> None:
    pool.swap_entries(omap, expect={"a": None})
    with pytest.raises(ConflictError):
        pool.swap_entries(omap, expect={"a": "1"})


def test_a_key_put_and_removed_is_gone(pool: Pool, omap: str) -> None:
    pool.swap_entries(omap, expect={}, put={"a": "1"}, remove=("a",))
    assert pool.read_entry(omap, "a") is None


def test_a_lost_swap_makes_no_object(pool: Pool, omap: str) -> None:
    with pytest.raises(ConflictError):
        pool.swap_entries(omap, expect={"a": "1"}, put={"a": "2"})
    assert pool.read_entries(omap, prefix="") == []


def test_pages_are_whole_and_in_order_of_bytes(pool: Pool, omap: str) -> None:
    keys = [f"v.{number:04}" for number in range(2500)]
    others = ["u", "v", "v.", "v/", "w", "z", "ö"]
    every = dict.fromkeys([*keys, *others], "x")
    pool.swap_entries(omap, expect={}, put=every)
    rows = pool.read_entries(omap, prefix="", limit=9999)
    assert [key for key, _ in rows] == sorted(every, key=str.encode)
    assert [key for key, _ in pool.read_entries(omap, prefix="v.", limit=2000)] == [
        "v.",
        *keys[:1999],
    ]
    assert len(pool.read_entries(omap, prefix="v.")) == 1000
    page = pool.read_entries(omap, prefix="v.", after="v.2497", limit=10)
    assert page == [("v.2498", "x"), ("v.2499", "x")]
    assert pool.read_entries(omap, prefix="v.2", after="a", limit=1) == [
        ("v.2000", "x"),
    ]
    assert pool.read_entries(omap, prefix="v.", after="w") == []
    assert pool.read_entries(omap, prefix="", limit=0) == []


def test_no_update_of_metadata_is_lost(
    pool: Pool,
    make_image: MakeImage,
    connect: Callable[[], Ceph],
) -> None:
    image_id = id_of(pool, make_image())
    pool.swap_metadata(image_id, KEY, None, "0")

    def add_one(mine: Pool) -> bool:
        present = mine.read_metadata(image_id, KEY)
        assert present is not None
        try:
            mine.swap_metadata(image_id, KEY, present, str(int(present) + 1))
        except ConflictError:
            return False
        return True

    _race(connect, add_one)
    assert pool.read_metadata(image_id, KEY) == str(THREADS * ROUNDS)


def test_no_update_of_an_entry_is_lost(
    pool: Pool,
    omap: str,
    connect: Callable[[], Ceph],
) -> None:
    def add_one(mine: Pool) -> bool:
        present = mine.read_entry(omap, "count")
        try:
            mine.swap_entries(
                omap,
                expect={"count": present},
                put={"count": str(int(present or "0") + 1)},
            )
        except ConflictError:
            return False
        return True

    _race(connect, add_one)
    assert pool.read_entry(omap, "count") == str(THREADS * ROUNDS)


def test_a_claim_has_one_winner(
    omap: str,
    connect: Callable[[], Ceph],
) -> None:
    start = threading.Barrier(THREADS)
    pools = [connect().pool(POOL, NAMESPACE) for _ in range(THREADS)]

    def claim(number: int) -> int:
        start.wait()
        won = 0
        for turn in range(ROUNDS):
            try:
                pools[number].swap_entries(
                    omap,
                    expect={f"claim-{turn}": None},
                    put={f"claim-{turn}": str(number)},
                )
            except ConflictError:
                continue
            won += 1
        return won

    with ThreadPoolExecutor(THREADS) as threads:
        assert sum(threads.map(claim, range(THREADS))) == ROUNDS


def _race(connect: Callable[[], Ceph], step: Callable[[Pool], bool]) -> None:
    """Let clients at once carry out `step` until each has succeeded ROUNDS times."""
    pools = [connect().pool(POOL, NAMESPACE) for _ in range(THREADS)]
    start = threading.Barrier(THREADS)

    def run(mine: Pool) -> None:
        start.wait()
        done = 0
        while done < ROUNDS:
            done += step(mine)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(run, pools))
