# SPDX-License-Identifier: Apache-2.0
"""Snapshots: what they keep, how they are named, when they go."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import pytest

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.values import Dependants
from csi_driver.images.values import NewClone
from csi_driver.images.values import ParentLink
from tests.contract.images.family import FIRST
from tests.contract.images.family import SIZE
from tests.contract.images.family import Family
from tests.contract.images.family import Key
from tests.contract.images.worlds import FEATURES


def test_snapshots_are_listed_oldest_first(family: Family) -> None:
    one, other = family.flat(), family.flat()
    before = time.time_ns()
    with one.raw() as image:
        assert image.snapshots() == []
        for name in ("b", "a"):
            image.create_snapshot(name)
        first, second = image.snapshots()
        assert (first.name, second.name) == ("b", "a")
        assert 0 < first.number < second.number
        assert first.size == RawSize(SIZE)
        assert not first.lingering
        assert abs(first.created - before) < 60_000_000_000
        assert image.dependants() == Dependants(2, 0)
    # A number is given once in a pool.
    assert other.snapshot("b") > second.number


def test_a_name_is_taken_until_its_snapshot_is_removed(family: Family) -> None:
    with family.flat().raw() as image:
        image.create_snapshot("s")
        with pytest.raises(AlreadyExistsError):
            image.create_snapshot("s")
        (first,) = image.snapshots()
        image.remove_snapshot("s")
        assert image.snapshots() == []
        with pytest.raises(NotFoundError):
            image.remove_snapshot("s")
        image.create_snapshot("s")
        (second,) = image.snapshots()
        assert second.number > first.number


def test_a_snapshot_keeps_size_data_and_header(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    one = family.flat()
    bare = one.snapshot("bare")
    with one.raw() as image:
        image.write_header(keys[0].header)
    one = dataclasses.replace(one, keys=keys[:1])
    one.write(0, b"then" * 3000)
    then = one.snapshot("then")
    with one.loaded() as image:
        image.write(4096, b"now!" * 3000)
        image.write(20 * MIB, b"now!")
        image.grow(EffectiveSize(60 * MIB))
    with one.loaded(snapshot=then) as image:
        assert image.size() == EffectiveSize(48 * MIB)
        assert image.read(0, 16384) == (b"then" * 3000).ljust(16384, b"\0")
        assert image.read(20 * MIB, 4) == bytes(4)
    assert one.read(4096, 12) == b"now!now!now!"
    with one.raw(snapshot=then) as image:
        assert image.raw_size() == RawSize(SIZE)
        assert image.read_header(4096) == keys[0].header[:4096]
        assert image.name == one.name
    with one.raw(snapshot=bare) as image:
        assert image.read_header(4096) == bytes(4096)
    with pytest.raises(HeaderError):
        one.loaded(snapshot=bare)


def test_an_absent_number_is_not_found(family: Family, keys: tuple[Key, ...]) -> None:
    one = family.flat(keys[0])
    with pytest.raises(NotFoundError):
        one.raw(snapshot=1 << 40)
    with pytest.raises(NotFoundError):
        one.loaded(snapshot=1 << 40)
    one.pool.remove_image(one.name)  # no handle was left behind


def test_what_shows_a_snapshot_changes_nothing(
    family: Family,
    keys: tuple[Key, ...],
    peer_pool: Pool,
) -> None:
    one = family.flat(keys[0])
    number = one.snapshot("s")
    with one.raw(snapshot=number) as image, one.loaded(snapshot=number) as loaded:
        for attempt in _changes(image):
            with pytest.raises(InUseError):
                attempt()
        with pytest.raises(InUseError):
            loaded.write(0, b"x")
        with pytest.raises(InUseError):
            loaded.grow(EffectiveSize(60 * MIB))
        for handle in (image, loaded):
            with pytest.raises(InvalidRequestError):
                handle.acquire_lock()
            with pytest.raises(InvalidRequestError):
                handle.lock_owner()
        with peer_pool.open_raw(one.image_id) as peer:
            assert peer.foreign_watchers() == []


def test_a_read_only_handle_changes_no_snapshot(family: Family) -> None:
    one = family.flat()
    one.snapshot("s")
    with one.raw(read_only=True) as image:
        for attempt in _changes(image):
            with pytest.raises(InUseError):
                attempt()
        assert [each.name for each in image.snapshots()] == ["s"]


def _changes(image: RawImage) -> list[Callable[[], object]]:
    return [
        lambda: image.create_snapshot("t"),
        lambda: image.remove_snapshot("s"),
        lambda: image.change_setting("rbd_qos_iops_limit", "1"),
        lambda: image.change_setting("rbd_qos_iops_limit", None),
        lambda: image.erase_header(4096),
    ]


def test_a_reader_goes_on_showing_what_it_found(family: Family) -> None:
    one = family.flat()
    with one.raw(read_only=True) as early:
        one.snapshot("s")
        with one.raw(read_only=True) as late:
            clone = family.clone(one, snapshot="s")
            assert early.snapshots() == []
            assert early.dependants() == Dependants(0, 0)
            assert early.children() == []
            # Clones of the snapshots that it knows are looked up anew.
            assert late.dependants() == Dependants(1, 1)
            assert [each.image_id for each in late.children()] == [clone.image_id]


def test_snapshots_go_round_the_lock(
    family: Family,
    keys: tuple[Key, ...],
    peer_pool: Pool,
) -> None:
    one = family.flat(keys[0])
    with one.loaded() as owner, peer_pool.open_raw(one.image_id) as other:
        owner.acquire_lock()
        owner.write(0, b"acknowledged")
        other.create_snapshot("s")
        (snapshot,) = other.snapshots()
        owner.write(0, b"later")
        assert one.read(0, 12, snapshot=snapshot.number) == b"acknowledged"
        other.create_snapshot("t")
        other.remove_snapshot("t")
        assert [each.name for each in other.snapshots()] == ["s"]
        owner.write(0, b"still writes")


def test_a_snapshot_with_clones_lingers_until_they_are_gone(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    one = family.flat(keys[0])
    one.write(0, b"parent")
    number = one.snapshot("s")
    clones = [family.clone(one, snapshot="s") for _ in range(2)]
    links: list[ParentLink] = []
    one.drop("s")
    with one.raw() as image:
        (lingering,) = image.snapshots()
        assert lingering.lingering
        assert lingering.number == number
        assert lingering.name not in {"", "s"}
        assert image.dependants() == Dependants(1, 2)
        for name in ("s", lingering.name):
            with pytest.raises(NotFoundError):
                image.remove_snapshot(name)
            with pytest.raises(NotFoundError):
                one.pool.clone_image(
                    one.path(name), NewClone("none", image.striping(), FEATURES)
                )
        image.create_snapshot("s")  # the name is free
        assert len(image.snapshots()) == 2
        image.remove_snapshot("s")
    assert one.read(0, 6, snapshot=number) == b"parent"
    for clone in clones:
        assert clone.read(0, 6) == b"parent"
        with clone.raw() as image:
            link = image.parent()
        assert link is not None
        assert link.path == one.path(lingering.name)
        with one.pool.open_parent(link) as parent:
            assert parent.image_id == one.image_id
            assert parent.read_header(FIRST) == keys[0].header[:FIRST]
        links.append(link)
        one.pool.remove_image(clone.name)
    with one.raw() as image:
        assert image.snapshots() == []
    with pytest.raises(NotFoundError):
        one.pool.open_parent(links[0])
    one.pool.remove_image(one.name)
    with pytest.raises(NotFoundError):
        one.pool.open_parent(links[0])
