# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, without a word, when clones change their size.

As `test_traps`: the damage by other tools first, then the driver's way.
"""

from __future__ import annotations

import pytest
import rbd

from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from tests.ceph.clones.conftest import Clone
from tests.ceph.clones.conftest import Place
from tests.ceph.clones.conftest import Source
from tests.ceph.clones.making import LAYOUT
from tests.ceph.clones.making import SIZE
from tests.ceph.clones.making import Making
from tests.ceph.clones.raw_tools import RawTools
from tests.ceph.clones.test_traps import require_no_way

UNEVEN = 11 * MIB - 8 * KIB
EVEN = 8 * MIB
"""Effective sizes: within an object, and at an object's border."""


def shrink_raw(tools: RawTools, image_id: str, size: int) -> None:
    with tools.image(image_id) as image:
        image.resize(LAYOUT.raw(EffectiveSize(size)).count)


def require_ours_shrinks(place: Place, source: Source, size: int) -> None:
    """Shrink and regrow: head, snapshot and tail are right."""
    making = place.making
    image_id = making.formatted(source.image_id, source.snapshot)
    snapshot = making.snapshot(image_id)
    with making.pool.open_raw(image_id) as raw:
        require_no_way(raw, "shrink", "resize", "grow")
    with making.open(image_id) as image:
        with pytest.raises(InUseError, match="owner of its lock"):
            image.shrink(EffectiveSize(size))
        image.acquire_lock()
        image.shrink(EffectiveSize(size))
        assert image.size() == EffectiveSize(size)
    kept = source.content[:size]
    assert making.content(image_id) == kept
    assert making.content(image_id, snapshot) == source.content
    with making.open(image_id) as image:
        image.acquire_lock()
        image.grow(EffectiveSize(SIZE))
    assert making.content(image_id) == kept + bytes(SIZE - size)
    assert making.content(image_id, snapshot) == source.content


def test_raw_shrink_to_a_size_that_is_not_whole_objects(
    place: Place, source: Source
) -> None:
    making, tools = place.making, place.tools
    ruined = making.formatted(source.image_id, source.snapshot)
    shrink_raw(tools, ruined, UNEVEN)
    shown = making.content(ruined)  # no error
    assert len(shown) == UNEVEN
    assert shown[:EVEN] == source.content[:EVEN]
    assert shown[EVEN : EVEN + 4096] != source.content[EVEN : EVEN + 4096]
    assert shown[-4096:] != source.content[UNEVEN - 4096 : UNEVEN]
    require_ours_shrinks(place, source, UNEVEN)


def test_raw_shrink_of_a_formatted_clone_that_has_snapshots(
    place: Place, source: Source
) -> None:
    making, tools = place.making, place.tools
    ruined = making.formatted(source.image_id, source.snapshot)
    snapshot = making.snapshot(ruined)
    shrink_raw(tools, ruined, EVEN)
    # At an object's border the head is right, and the snapshot is not.
    assert making.content(ruined) == source.content[:EVEN]
    shown = making.content(ruined, snapshot)  # no error
    assert shown[:EVEN] == source.content[:EVEN]
    assert shown[EVEN : EVEN + 4096] != source.content[EVEN : EVEN + 4096]
    assert shown[-4096:] != source.content[-4096:]
    require_ours_shrinks(place, source, EVEN)


def test_resize_below_the_current_size(place: Place, clone: Clone) -> None:
    """python-rbd's resize shrinks unless it is told not to."""
    making, tools = place.making, place.tools
    keys = making.chain_keys(clone.image_id)
    with making.open(clone.image_id) as image:
        image.acquire_lock()
        with pytest.raises(SizeError, match="would shrink"):
            image.grow(EffectiveSize(SIZE - 4096))
        with pytest.raises(SizeError, match="would grow"):
            image.shrink(EffectiveSize(SIZE + 4096))
        assert image.size() == EffectiveSize(SIZE)
    assert making.content(clone.image_id) == clone.content

    with tools.loaded(clone.image_id, *keys) as image:
        image.resize(SIZE - 4096)  # no error
        image.resize(SIZE)
    shown = making.content(clone.image_id)
    assert shown == clone.content[: SIZE - 4096] + bytes(4096)


def test_resize_by_an_unloaded_caller_while_a_loaded_handle_owns_the_lock(
    place: Place, clone: Clone
) -> None:
    """It is the owner that gives the number its meaning."""
    making, tools = place.making, place.tools
    wanted = EffectiveSize(40 * MIB)
    with making.open(clone.image_id) as image:
        image.acquire_lock()
        tools.command(
            "resize",
            "--size",
            str(LAYOUT.raw(wanted).count // MIB) + "M",
            tools.path(clone.image_id),
        )
        off = EffectiveSize(wanted.count + LAYOUT.reserve)
        assert image.size() == off
        # The driver sees it on a raw handle, and its owner can mend it.
        with making.pool.open_raw(clone.image_id, read_only=True) as raw:
            assert raw.raw_size() != LAYOUT.raw(wanted)
        image.shrink(wanted)
        with making.pool.open_raw(clone.image_id, read_only=True) as raw:
            assert raw.raw_size() == LAYOUT.raw(wanted)
    rest = wanted.count - SIZE
    assert making.content(clone.image_id) == clone.content + bytes(rest)


def test_resize_by_a_loaded_caller_while_a_raw_handle_owns_the_lock(
    place: Place, clone: Clone
) -> None:
    making, tools = place.making, place.tools
    keys = making.chain_keys(clone.image_id)
    with (
        tools.image(clone.image_id) as raw,
        place.other.loaded(clone.image_id, *keys) as loaded,
    ):
        raw.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        loaded.resize(40 * MIB, False)  # no error
        assert loaded.size() == 40 * MIB - LAYOUT.reserve
        # The driver takes the lock before it resizes, and does not get it.
        with making.open(clone.image_id) as image:
            with pytest.raises(InUseError):
                image.acquire_lock()
            with pytest.raises(InUseError, match="owner of its lock"):
                image.shrink(EffectiveSize(SIZE))
    with making.open(clone.image_id) as image:
        image.acquire_lock()
        with pytest.raises(rbd.ReadOnlyImage):
            seize_lock(tools, clone.image_id)
        image.grow(EffectiveSize(40 * MIB))
        assert image.size() == EffectiveSize(40 * MIB)
    with making.pool.open_raw(clone.image_id, read_only=True) as raw:
        assert raw.raw_size() == RawSize(40 * MIB + LAYOUT.reserve)
    rest = 40 * MIB - SIZE
    assert making.content(clone.image_id) == clone.content + bytes(rest)


def seize_lock(tools: RawTools, image_id: str) -> None:
    with tools.image(image_id) as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)


def test_a_header_larger_than_its_parents(place: Place, making: Making) -> None:
    """The parent's tail is lost, and growing the clone does not bring it back."""
    parent = making.plain(reserve=0)
    content = bytes(range(256)) * (SIZE // 256)
    with place.tools.image(parent) as image:
        image.write(content, 0)
    snapshot = making.snapshot(parent)
    cut = making.formatted(parent, snapshot, reserve=4 * MIB)
    with making.open(cut) as image:
        image.acquire_lock()
        image.grow(EffectiveSize(SIZE))
    seen = SIZE - 4 * MIB
    assert making.content(cut) == content[:seen] + bytes(4 * MIB)
