# SPDX-License-Identifier: Apache-2.0
"""The rules of changing a formatted clone, on real librbd.

    flatten needs the load
    shrink needs the load

The damage that is done without it is in `test_traps` and `test_traps_of_size`.
"""

from __future__ import annotations

import random

import pytest

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.testing.luks import open_header
from tests.ceph.clones.conftest import Clone
from tests.ceph.clones.conftest import Place
from tests.ceph.clones.conftest import Source
from tests.ceph.clones.making import LAYOUT
from tests.ceph.clones.making import SIZE
from tests.ceph.clones.making import Making
from tests.ceph.clones.raw_tools import RawTools
from tests.ceph.clones.stacks import build
from tests.ceph.clones.stacks import grow_stack
from tests.ceph.clones.stacks import write


def specs(*keys: SecretBytes) -> LoadSpecs:
    return LoadSpecs(tuple(LayerSpec(key) for key in keys))


@pytest.mark.parametrize("bottom", ["flat", "plain", "luks1"])
def test_flatten_needs_the_load(making: Making, tools: RawTools, bottom: str) -> None:
    """Then every byte of the image is under its own key, and that alone opens it."""
    stack = build(making, tools, bottom, "formatted")
    keys = making.chain_keys(stack.image_id)
    reports: list[tuple[int, int]] = []

    def report(done: int, total: int) -> bool:
        reports.append((done, total))
        return True

    with making.open(stack.image_id) as image:
        with pytest.raises(InUseError, match="owner of its lock"):
            image.flatten(report)
        assert not reports
        image.acquire_lock()
        image.flatten(report)
    assert reports[-1][0] <= reports[-1][1]
    raw = tools.raw_bytes(stack.image_id)
    assert header_kind(raw) is HeaderKind.LUKS2
    assert raw[16384 : 16384 + 6] == b"SKUL\xba\xbe"
    opened = open_header(raw, keys[0].reveal())
    assert opened.data_offset == stack.reserve
    assert opened.sectors().decrypt(0, raw[stack.reserve :]) == stack.content

    assert not tools.has_parent(stack.image_id)
    assert making.chain_keys(stack.image_id) == keys[:1]
    assert tools.content(stack.image_id, keys[0]) == stack.content
    if keys[1:]:
        with pytest.raises(HeaderError):
            making.pool.open_loaded(stack.image_id, specs(*keys))
        with pytest.raises(SecretError):
            making.pool.open_loaded(stack.image_id, specs(keys[1]))
    with making.open(stack.image_id) as image:
        image.acquire_lock()
        with pytest.raises(PreconditionError, match="no parent"):
            image.flatten(report)


def test_flatten_needs_the_load_and_leaves_snapshots_as_they_are(
    making: Making, tools: RawTools
) -> None:
    """A snapshot from before the flatten opens with all keys, and its clones do."""
    stack = build(making, tools, "flat", "formatted")
    (parent, _), middle = stack.below[0], stack.image_id
    old, keys = bytes(stack.content), making.chain_keys(middle)
    grow_stack(making, stack, "formatted")
    snapshot = stack.below[-1][1]

    with making.open(middle) as image:
        image.acquire_lock()
        image.flatten(lambda _done, _total: True)
        image.write(7, b"later than the snapshot")
    assert making.chain_keys(middle) == keys[:1]
    assert making.chain_keys(middle, snapshot) == keys
    assert making.content(middle, snapshot) == old
    assert making.content(middle) == old[:7] + b"later than the snapshot" + old[30:]
    top = making.chain_keys(stack.image_id)
    assert top[1:] == keys
    assert making.content(stack.image_id) == stack.content

    # The parent goes once the last one that reads it is gone.
    making.flatten(stack.image_id)
    assert tools.content(stack.image_id, top[0]) == stack.content
    with making.pool.open_raw(parent) as raw:
        assert raw.dependants().children == 1
    with making.pool.open_raw(middle) as raw:
        raw.remove_snapshot(raw.snapshots()[0].name)
    with making.pool.open_raw(parent) as raw:
        assert raw.dependants().children == 0


def test_flatten_needs_the_load_of_a_clone_that_inherits(
    making: Making, tools: RawTools
) -> None:
    stack = build(making, tools, "flat", "formatted", "inherit")
    keys = making.chain_keys(stack.image_id)
    assert keys[0] == keys[1] != keys[2]
    making.flatten(stack.image_id)
    assert making.chain_keys(stack.image_id) == keys[:1]
    assert tools.content(stack.image_id, keys[0]) == stack.content


def test_flatten_needs_the_load_and_goes_on_where_it_was_cancelled(
    making: Making, many: Source
) -> None:
    image_id = making.formatted(many.image_id, many.snapshot)
    last = 0

    def report(done: int, total: int) -> bool:
        nonlocal last
        last = done
        return done < total // 2

    with making.open(image_id) as image:
        image.acquire_lock()
        with pytest.raises(CancelledError, match=image_id):
            image.flatten(report)
        assert last
        image.write(3, b"between")
        image.flatten(lambda _done, _total: True)
    assert len(making.chain_keys(image_id)) == 1
    assert making.content(image_id) == many.content[:3] + b"between" + many.content[10:]


def test_flatten_needs_the_load_also_when_the_magic_is_back_already(
    making: Making, tools: RawTools, clone: Clone
) -> None:
    """A flatten that died at its very end: the parent is still attached."""
    keys = making.chain_keys(clone.image_id)
    with tools.image(clone.image_id) as image:
        image.write(b"LUKS", 0)
        image.write(b"SKUL", 16384)
    assert tools.has_parent(clone.image_id)
    assert making.chain_keys(clone.image_id) == keys
    with pytest.raises(SecretError):
        making.pool.open_loaded(clone.image_id, specs(keys[0]))
    assert making.content(clone.image_id) == clone.content
    making.flatten(clone.image_id)
    assert making.chain_keys(clone.image_id) == keys[:1]
    assert tools.content(clone.image_id, keys[0]) == clone.content


SIZES = [1, 4097, 4 * MIB, 5 * MIB + 512, 8 * MIB, 9 * MIB + 12_345, SIZE - 4096]


@pytest.mark.parametrize("size", SIZES)
def test_shrink_needs_the_load(place: Place, clone: Clone, size: int) -> None:
    """Head, snapshots and the tail of one that grows again are right."""
    making, tools = place.making, place.tools
    keys = making.chain_keys(clone.image_id)
    first = making.snapshot(clone.image_id)
    with making.open(clone.image_id) as image:
        with pytest.raises(InUseError, match="owner of its lock"):
            image.shrink(EffectiveSize(size))
        image.acquire_lock()
        image.write(0, b"!")
    now = b"!" + clone.content[1:]
    second = making.snapshot(clone.image_id)
    with making.open(clone.image_id) as image:
        image.acquire_lock()
        image.shrink(EffectiveSize(size))
        assert image.size() == EffectiveSize(size)
    with making.pool.open_raw(clone.image_id, read_only=True) as raw:
        assert raw.raw_size() == LAYOUT.raw(EffectiveSize(size))
    assert making.content(clone.image_id) == now[:size]
    for snapshot, content in ((first, clone.content), (second, now)):
        assert tools.content(clone.image_id, *keys, snapshot=snapshot) == content
    with making.open(clone.image_id) as image:
        image.acquire_lock()
        image.grow(EffectiveSize(SIZE))
    assert making.content(clone.image_id) == now[:size] + bytes(SIZE - size)
    making.flatten(clone.image_id)
    assert making.content(clone.image_id) == now[:size] + bytes(SIZE - size)
    for snapshot, content in ((first, clone.content), (second, now)):
        assert making.content(clone.image_id, snapshot) == content


@pytest.mark.parametrize("bottom", ["plain", "luks1"])
def test_shrink_needs_the_load_over_other_parents(
    making: Making, tools: RawTools, bottom: str
) -> None:
    stack = build(making, tools, bottom, "formatted", "inherit", "formatted")
    snapshot = making.snapshot(stack.image_id)
    rng = random.Random(13)  # noqa: S311  # test data
    kept = bytes(stack.content)
    for _ in range(3):
        size = rng.randrange(1, len(kept))
        with making.open(stack.image_id) as image:
            image.acquire_lock()
            image.shrink(EffectiveSize(size))
            image.grow(EffectiveSize(SIZE))
        with making.pool.open_raw(stack.image_id, read_only=True) as raw:
            assert raw.raw_size() == Layout(stack.reserve).raw(EffectiveSize(SIZE))
        kept = kept[:size] + bytes(SIZE - size)
        assert making.content(stack.image_id) == kept, size
        kept = kept[:size]
    assert making.content(stack.image_id, snapshot) == stack.content
    stack.content[:] = kept + bytes(SIZE - len(kept))
    # Never one block of an absent object: librbd shows garbage beside it.
    write(making, tools, stack, SIZE // 2, b"again" * (SIZE // 10))
    assert making.content(stack.image_id) == stack.content
