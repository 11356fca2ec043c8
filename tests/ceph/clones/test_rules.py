# SPDX-License-Identifier: Apache-2.0
"""The rules of clones that have headers of their own, on real librbd.

    load covers the parents
    a formatted clone has its own header and key
    effective size and overlap
    no second load or format

Flatten and shrink, which need the load, are in `test_rules_of_change`.
"""

from __future__ import annotations

import functools

import pytest

from csi_driver.domain.chain import DEEPEST_CHAIN
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import header_kind
from csi_driver.domain.chain import specs_for
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import HeaderExistsError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import Striping
from csi_driver.images.chains import FIRST_BYTES
from csi_driver.images.chains import read_chain
from csi_driver.images.headers import SPARSE_LENGTH
from csi_driver.images.headers import clone_header
from csi_driver.images.headers import require_header_room
from csi_driver.testing.luks import open_header
from tests.ceph.clones.conftest import Clone
from tests.ceph.clones.conftest import Source
from tests.ceph.clones.making import LAYOUT
from tests.ceph.clones.making import SIZE
from tests.ceph.clones.making import Making
from tests.ceph.clones.making import fill
from tests.ceph.clones.making import noise
from tests.ceph.clones.raw_tools import RawTools
from tests.ceph.clones.stacks import LUKS1_ROOM
from tests.ceph.clones.stacks import Stack
from tests.ceph.clones.stacks import build

CHAINS = {
    "flat": ("flat",),
    "formatted": ("flat", "formatted"),
    "inherit": ("flat", "inherit"),
    "plaintext parent": ("plain", "formatted"),
    "LUKS1 under LUKS2": ("luks1", "formatted"),
    "mixed": ("flat", "formatted", "inherit", "formatted", "inherit"),
    "mixed over LUKS1": ("luks1", "inherit", "formatted", "inherit", "formatted"),
    "mixed over plaintext": ("plain", "inherit", "formatted", "inherit", "formatted"),
    "depth 8": ("flat", *["formatted"] * 7),
    "depth 16": ("flat", *["formatted"] * 15),
}
WRONG = SecretBytes(bytes(32))


@functools.cache
def built(making: Making, tools: RawTools, layers: tuple[str, ...]) -> Stack:
    """Build a chain that no test changes."""
    return build(making, tools, *layers)


def load(making: Making, image_id: str, keys: list[SecretBytes]) -> None:
    specs = LoadSpecs(tuple(LayerSpec(key) for key in keys))
    making.pool.open_loaded(image_id, specs).close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("layers", CHAINS.values(), ids=CHAINS.keys())
def test_load_covers_the_parents(
    making: Making, tools: RawTools, layers: tuple[str, ...]
) -> None:
    stack = built(making, tools, layers)
    chain = read_chain(making.pool, stack.image_id)
    assert [layer.kind for layer in chain] == stack.kinds
    images = [image_id for image_id, _ in stack.below]
    assert [layer.image_id for layer in chain] == [stack.image_id, *reversed(images)]
    keys = making.chain_keys(stack.image_id)
    assert keys == stack.keys
    assert len(keys) == sum(kind.encrypted for kind in stack.kinds)
    assert making.content(stack.image_id) == stack.content
    assert tools.content(stack.image_id, *keys) == stack.content


@pytest.mark.timeout(240)
@pytest.mark.parametrize("layers", CHAINS.values(), ids=CHAINS.keys())
def test_load_covers_the_parents_and_takes_no_other_keys(
    making: Making, tools: RawTools, layers: tuple[str, ...]
) -> None:
    stack = built(making, tools, layers)
    keys = stack.keys
    for number in {0, len(keys) // 2, len(keys) - 1}:
        with pytest.raises(SecretError):
            load(making, stack.image_id, [*keys[:number], WRONG, *keys[number + 1 :]])
    if len(keys) < DEEPEST_CHAIN:
        with pytest.raises(HeaderError):
            load(making, stack.image_id, [*keys, keys[-1]])
    if keys[0] != keys[-1]:
        for fewer in (keys[::-1], keys[:1], keys[1:]):
            with pytest.raises(SecretError):
                load(making, stack.image_id, fewer)
    load(making, stack.image_id, keys)


def test_load_covers_the_parents_whose_keys_are_at_hand(
    making: Making, source: Source, clone: Clone
) -> None:
    chain = read_chain(making.pool, clone.image_id)
    own, parent = (str(layer.key) for layer in chain)
    with pytest.raises(SecretError, match=f"{source.image_id}.*{parent}"):
        specs_for(chain, {own: making.keys[own]})
    with pytest.raises(SecretError, match=f"{clone.image_id}.*{own}"):
        specs_for(chain, {parent: making.keys[parent]})


# ----------------------------------------- a formatted clone's header and key


def test_a_formatted_clone_has_its_own_header_and_key(
    making: Making, tools: RawTools, source: Source
) -> None:
    image_id = making.formatted(source.image_id, source.snapshot)
    # Nothing of the parent was copied: there are the header, and empty objects.
    assert tools.objects(image_id) == {0: 4 * MIB, 1: 0, 2: 0, 3: 0}
    header, theirs = tools.object(image_id, 0), tools.object(source.image_id, 0)
    assert header_kind(header) is HeaderKind.CLONE_LUKS2
    assert header[SPARSE_LENGTH:] == bytes(4 * MIB - SPARSE_LENGTH)
    own_key, parent_key = making.chain_keys(image_id)
    own = open_header(header, own_key.reveal())
    parent = open_header(theirs, parent_key.reveal())
    assert own_key != parent_key
    assert own.volume_key != parent.volume_key
    assert own.uuid != parent.uuid
    for key, other in ((own_key, theirs), (parent_key, header)):
        with pytest.raises(SecretError):
            open_header(other, key.reveal())


def test_a_formatted_clone_has_its_own_key_for_what_it_writes(
    making: Making, tools: RawTools, source: Source
) -> None:
    image_id = making.formatted(source.image_id, source.snapshot)
    before = {n: tools.object(source.image_id, n) for n in range(4, 8)}
    data, at = noise(8, 9000), 5 * MIB + 77
    with making.open(image_id) as image:
        image.write(at, data)
    # The rest of the object came up from the parent, under the clone's key.
    assert set(tools.objects(image_id)) == {0, 1, 2, 3, 5}
    content = bytearray(source.content)
    content[at : at + len(data)] = data
    wanted = content[4 * MIB : 8 * MIB]
    own_key, parent_key = making.chain_keys(image_id)
    own = open_header(tools.object(image_id, 0), own_key.reveal())
    parent = open_header(tools.object(source.image_id, 0), parent_key.reveal())
    sealed = tools.object(image_id, 5)
    assert own.sectors().decrypt(4 * MIB, sealed) == wanted
    mistaken = parent.sectors().decrypt(4 * MIB, sealed)
    for start in range(0, 4 * MIB, 4096):
        assert mistaken[start : start + 4096] != wanted[start : start + 4096]
    # And the parent is as it was.
    assert {n: tools.object(source.image_id, n) for n in range(4, 8)} == before


STRIPINGS = [
    Striping(MIB, MIB),
    Striping(8 * MIB, 8 * MIB),
    Striping(32 * MIB, 32 * MIB),
    Striping(4 * MIB, 4 * MIB, 3),
]


@pytest.mark.parametrize("striping", STRIPINGS, ids=str)
def test_a_formatted_clone_has_its_own_header_and_key_in_other_objects(
    making: Making, tools: RawTools, striping: Striping
) -> None:
    content = bytearray(noise(5, SIZE))
    parent = making.flat(striping=striping)
    with making.open(parent) as image:
        fill(image, bytes(content))
    image_id = making.formatted(parent, making.snapshot(parent))
    room = Layout.for_striping(striping).reserve // striping.object_size
    empty = dict.fromkeys(range(1, room), 0)
    assert tools.objects(image_id) == {0: striping.object_size, **empty}
    assert making.content(image_id) == content
    keys = making.chain_keys(image_id)
    for wrong in ([WRONG, keys[1]], [keys[0], WRONG], keys[::-1]):
        with pytest.raises(SecretError):
            load(making, image_id, wrong)
    with making.open(image_id) as image:
        image.write(9 * MIB - 5, b"over a border")
    content[9 * MIB - 5 :][:13] = content[9 * MIB - 5 : 9 * MIB + 8] = b"over a border"
    assert making.content(image_id) == content
    making.flatten(image_id)
    assert tools.content(image_id, keys[0]) == content


# ------------------------------------------------ effective size and overlap


@pytest.mark.parametrize("bottom", ["flat", "plain", "luks1"])
def test_effective_size_and_overlap(
    making: Making, tools: RawTools, bottom: str
) -> None:
    """A clone of equal size reads its parent to the last byte, and no further."""
    stack = build(making, tools, bottom, "formatted")
    ((parent, _),) = stack.below
    with making.pool.open_raw(stack.image_id, read_only=True) as raw:
        link, size = raw.parent(), raw.raw_size()
    with making.pool.open_raw(parent, read_only=True) as raw:
        assert raw.raw_size() == size
    assert link is not None
    assert link.overlap == size
    assert Layout(stack.reserve).effective(size) == EffectiveSize(SIZE)
    with making.open(stack.image_id) as image:
        assert image.size() == EffectiveSize(SIZE)
        assert image.read(SIZE - 1, 1) == noise(3, SIZE)[-1:]
    assert making.content(stack.image_id) == stack.content

    grown = EffectiveSize(SIZE + 5 * MIB)
    with making.open(stack.image_id) as image:
        image.acquire_lock()
        image.grow(grown)
        assert image.size() == grown
    # In a plaintext parent, the bytes behind its end are its reserve.
    assert making.content(stack.image_id) == stack.content + bytes(5 * MIB)
    with making.pool.open_raw(stack.image_id, read_only=True) as raw:
        assert raw.raw_size() == Layout(stack.reserve).raw(grown)


def test_effective_size_and_overlap_below_a_larger_header(
    making: Making, tools: RawTools
) -> None:
    """What a header as large as usual would hide of a LUKS1 parent."""
    stack = build(making, tools, "luks1")
    snapshot = making.snapshot(stack.image_id)
    lost = LAYOUT.reserve - LUKS1_ROOM
    cut = making.formatted(stack.image_id, snapshot)
    assert making.content(cut) == stack.content[: SIZE - lost]
    whole = making.formatted(stack.image_id, snapshot, reserve=LUKS1_ROOM)
    assert making.content(whole) == stack.content


def test_effective_size_and_overlap_with_the_least_room(
    making: Making, tools: RawTools
) -> None:
    content = noise(6, SIZE)
    parent = making.plain(striping=Striping(MIB, MIB), reserve=MIB)
    with tools.image(parent) as image:
        image.write(content, 0)
    require_header_room(Layout(MIB), parent)
    image_id = making.formatted(parent, making.snapshot(parent), reserve=MIB)
    assert making.content(image_id) == content
    making.flatten(image_id)
    assert making.content(image_id) == content
    for room in (0, 4096, MIB - 4096):
        with pytest.raises(PreconditionError, match=f"has {room} bytes.*{MIB} at"):
            require_header_room(Layout(room), parent)


def test_effective_size_and_overlap_of_a_parent_that_pretends_to_be_encrypted(
    making: Making, tools: RawTools
) -> None:
    """A tenant can write a LUKS magic into a plaintext volume."""
    parent = making.plain()
    pretended = making.flat()
    with tools.image(parent) as image:
        image.write(tools.object(pretended, 0), 0)
    image_id = making.formatted(parent, making.snapshot(parent))
    (own, _) = read_chain(making.pool, image_id)
    tenants = making.chain_keys(pretended)[0]
    for keys in ([making.keys[str(own.key)]], [tenants]):
        with pytest.raises(SecretError):
            load(making, image_id, keys)


# --------------------------------------------------- no second load or format


@pytest.mark.parametrize("kind", ["flat", "formatted", "inherit", "flattened"])
def test_no_second_load_or_format(making: Making, tools: RawTools, kind: str) -> None:
    layers = {"flat": ("flat",), "flattened": ("flat", "formatted")}
    stack = build(making, tools, *layers.get(kind, ("flat", kind)))
    if kind == "flattened":
        making.flatten(stack.image_id)
    before = tools.raw_bytes(stack.image_id)
    specs = making.specs(stack.image_id)
    spare = making.flat()
    header = tools.object(spare, 0)
    with making.open(stack.image_id) as image:
        with pytest.raises(AlreadyLoadedError):
            image.load(specs)
        with pytest.raises(AlreadyLoadedError):
            image.write_header(header)
    with making.pool.open_raw(stack.image_id) as raw:
        with pytest.raises(PreconditionError):
            raw.write_header(header)
        if kind in {"flat", "flattened"}:
            with pytest.raises(PreconditionError, match="no clone"):
                raw.write_clone_header(clone_header(header), before[:FIRST_BYTES])
        else:
            # Shown neither its parent's bytes nor none, it has a header.
            with pytest.raises(HeaderExistsError, match="of its own already"):
                raw.write_clone_header(clone_header(header), header[:FIRST_BYTES])
    assert tools.raw_bytes(stack.image_id) == before
    assert making.content(stack.image_id) == stack.content


def test_no_second_load_or_format_of_a_formatted_clone(
    making: Making, tools: RawTools, source: Source, clone: Clone
) -> None:
    """Also if the caller knows well what the parent looks like."""
    covered = tools.object(source.image_id, 0)[:FIRST_BYTES]
    header = clone_header(tools.object(making.flat(), 0))
    with (
        making.pool.open_raw(clone.image_id) as raw,
        pytest.raises(HeaderExistsError, match="of its own already"),
    ):
        raw.write_clone_header(header, covered)
    assert making.content(clone.image_id) == clone.content
