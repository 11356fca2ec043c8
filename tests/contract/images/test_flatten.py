# SPDX-License-Identifier: Apache-2.0
"""Flatten: who may, what is left, and that every interruption can be repeated."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.port import LoadedImage
from csi_driver.images.port import Pool
from csi_driver.images.values import Dependants
from tests.contract.images.family import Family
from tests.contract.images.family import Key
from tests.contract.images.family import Member
from tests.contract.images.worlds import FEATURES
from tests.contract.images.worlds import World

FLAT, SECOND = b"LUKS\xba\xbe\x00\x02", b"SKUL\xba\xbe\x00\x02"
SECOND_AT = 16384


def go_on(done: int, total: int) -> bool:
    """Let a flatten finish."""
    return done < total


def flatten(member: Member) -> None:
    """Flatten as its lock's owner."""
    with member.loaded() as image:
        image.acquire_lock()
        image.flatten(go_on)


def alone(member: Member) -> Member:
    """Return the member with its own key alone."""
    return dataclasses.replace(member, keys=member.keys[:1])


@pytest.fixture
def clone(family: Family, keys: tuple[Key, ...]) -> Member:
    """Make a formatted clone with data of its parent's and its own."""
    parent = family.flat(keys[0])
    parent.write(0, b"p" * (6 * MIB))
    parent.write(47 * MIB, b"end")
    made = family.clone(parent, keys[1])
    made.write(MIB, b"own")
    return made


def intact(image: LoadedImage) -> None:
    """Check what the fixture has written."""
    assert image.size() == EffectiveSize(48 * MIB)
    assert image.read(0, MIB) == b"p" * MIB
    assert image.read(MIB, 6) == b"ownppp"
    assert image.read(4 * MIB, 2 * MIB) == b"p" * (2 * MIB)
    assert image.read(8 * MIB, MIB) == bytes(MIB)
    assert image.read(47 * MIB, 3) == b"end"


def test_a_flattened_clone_stands_alone(clone: Member, keys: tuple[Key, ...]) -> None:
    calls: list[tuple[int, int]] = []

    def on_progress(done: int, total: int) -> bool:
        calls.append((done, total))
        return True

    with clone.loaded() as image:
        image.acquire_lock()
        image.flatten(on_progress)
        intact(image)
        image.write(2 * MIB, b"later")
        with pytest.raises(PreconditionError, match="no parent"):
            image.flatten(go_on)
    assert {total for _, total in calls} == {16}
    assert sorted(calls) == calls
    with clone.raw() as raw:
        assert raw.parent() is None
        header = raw.read_header(SECOND_AT + 8)
        assert (header[:8], header[SECOND_AT:]) == (FLAT, SECOND)
        assert header[8:512] == keys[1].header[8:512]
    with alone(clone).loaded() as image:
        intact(image)
        assert image.read(2 * MIB, 5) == b"later"
    with pytest.raises(HeaderError):  # the parent's key is one too many
        clone.loaded()


def test_the_parent_is_let_go(family: Family, keys: tuple[Key, ...]) -> None:
    parent = family.flat(keys[0])
    parent.snapshot("s")
    clone = family.clone(parent, keys[1], snapshot="s")
    parent.drop("s")
    with clone.raw(read_only=True) as reader:
        flatten(clone)
        assert reader.parent() is not None  # as it was at the opening
    with parent.raw() as image:
        assert image.dependants() == Dependants(0, 0)
    parent.pool.remove_image(parent.name)
    with alone(clone).loaded() as image:
        assert image.size() == EffectiveSize(48 * MIB)


def test_only_the_owner_of_the_lock_flattens(clone: Member, peer_pool: Pool) -> None:
    with (
        clone.loaded() as image,
        clone.loaded(read_only=True) as reader,
        peer_pool.open_loaded(clone.image_id, clone.specs) as peer,
    ):
        for handle in (image, reader, peer):
            with pytest.raises(InUseError):
                handle.flatten(go_on)
        image.acquire_lock()
        for handle in (reader, peer):
            with pytest.raises(InUseError):
                handle.flatten(go_on)
            with pytest.raises(InUseError):
                handle.shrink(EffectiveSize(MIB))
        with clone.raw() as raw:
            assert raw.parent() is not None
        image.flatten(go_on)


def test_the_automatic_lock_is_enough(clone: Member) -> None:
    with clone.loaded() as image:
        image.write(0, b"p")  # takes it
        image.flatten(go_on)
        intact(image)


def test_a_cancelled_flatten_can_be_repeated(clone: Member) -> None:
    for stop in (1, 3):
        seen: list[int] = []

        def on_progress(
            done: int, _total: int, seen: list[int] = seen, stop: int = stop
        ) -> bool:
            seen.append(done)
            return len(seen) < stop

        with clone.loaded() as image:
            image.acquire_lock()
            with pytest.raises(CancelledError):
                image.flatten(on_progress)
            intact(image)
        with clone.raw() as raw:
            assert raw.parent() is not None
        with clone.loaded() as image:
            intact(image)
        with pytest.raises(SecretError):
            alone(clone).loaded()
    flatten(clone)
    with alone(clone).loaded() as image:
        intact(image)


def test_snapshots_keep_their_parent(
    family: Family,
    clone: Member,
    keys: tuple[Key, ...],
) -> None:
    number = clone.snapshot("s")
    grandchild = family.clone(clone, keys[2], snapshot="s")
    with clone.raw() as raw:
        link = raw.parent()
    assert link is not None
    flatten(clone)
    alone(clone).write(0, b"later")
    for member, at in ((clone, number), (grandchild, 0)):
        with member.loaded(snapshot=at) as image:
            intact(image)
    with pytest.raises(SecretError):
        alone(clone).loaded(snapshot=number)
    with clone.raw(snapshot=number) as raw:
        assert raw.parent() == link
    with clone.pool.open_parent(link) as below:
        assert [each.image_id for each in below.children()] == [clone.image_id]
        parent = below.name
    with pytest.raises(PreconditionError):
        clone.pool.remove_image(parent)
    flatten(grandchild)
    with alone(grandchild).loaded() as image:
        intact(image)
    clone.drop("s")
    with clone.pool.open_parent(link) as below:
        assert below.children() == []


def test_deep_flatten_would_orphan_snapshots(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    features = (*FEATURES, "deep-flatten")
    clone = family.clone(family.flat(keys[0]), keys[1], features=features)
    clone.snapshot("s")
    with clone.loaded() as image:
        image.acquire_lock()
        with pytest.raises(PreconditionError, match="snapshots"):
            image.flatten(go_on)
    clone.drop("s")
    flatten(clone)
    alone(clone).loaded().close()


def test_an_image_without_parent_is_flat(family: Family, keys: tuple[Key, ...]) -> None:
    with family.flat(keys[0]).loaded() as image:
        image.acquire_lock()
        with pytest.raises(PreconditionError, match="parent"):
            image.flatten(go_on)


def test_a_clone_of_plaintext_is_flattened(
    world: World,
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    """It fails for good unless empty objects hide the parent behind the header."""
    parent = family.flat()
    world.write_raw(parent.pool, parent.name, b"p" * (10 * MIB))
    clone = family.clone(parent, keys[0])
    clone.write(20 * MIB, b"own")
    flatten(clone)
    with clone.raw() as raw:
        assert raw.parent() is None
        assert raw.read_header(8) == FLAT
    assert clone.read(0, 10 * MIB) == b"p" * (10 * MIB)
    assert clone.read(12 * MIB, 4 * MIB) == bytes(4 * MIB)
    assert clone.read(20 * MIB, 3) == b"own"


def test_a_clone_that_was_never_formatted_is_flattened(
    family: Family,
    clone: Member,
) -> None:
    inherit = family.clone(clone)
    inherit.write(3 * MIB, b"inherit")
    flatten(inherit)
    with inherit.raw() as raw:
        assert raw.parent() is None
        assert raw.read_header(8) == FLAT
    with alone(inherit).loaded() as image:
        intact(image)
        assert image.read(3 * MIB, 7) == b"inherit"
    with clone.raw() as raw:
        assert raw.read_header(4) == b"RBDL"
