# SPDX-License-Identifier: Apache-2.0
"""Clones: where they may be, the header they get, what they read and copy."""

from __future__ import annotations

import random

import pytest

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import HeaderExistsError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.headers import clone_header
from csi_driver.images.port import Ceph
from csi_driver.images.values import ChildImage
from csi_driver.images.values import Dependants
from csi_driver.images.values import NewClone
from csi_driver.images.values import ParentLink
from csi_driver.images.values import SnapshotPath
from tests.contract.images.family import FIRST
from tests.contract.images.family import SIZE
from tests.contract.images.family import Family
from tests.contract.images.family import Key
from tests.contract.images.family import Member
from tests.contract.images.family import make_key
from tests.contract.images.worlds import FEATURES
from tests.contract.images.worlds import NAMESPACE
from tests.contract.images.worlds import PLACES
from tests.contract.images.worlds import POOL
from tests.contract.images.worlds import World

END = 48 * MIB
"""Exported bytes of an encrypted image of SIZE."""


@pytest.mark.parametrize("home", PLACES, ids=str)
@pytest.mark.parametrize("away", PLACES, ids=str)
def test_a_clone_of_any_place(
    ceph: Ceph,
    family: Family,
    keys: tuple[Key, ...],
    home: tuple[str, str],
    away: tuple[str, str],
) -> None:
    pa, pb, _ = keys
    parent = family.flat(pa, into=ceph.pool(*home))
    parent.write(0, b"parent")
    clone = family.clone(parent, pb, into=ceph.pool(*away))
    with clone.raw() as image:
        link = image.parent()
        assert link is not None
        assert (link.path.pool_name, link.path.namespace) == home
        assert link.image_id == parent.image_id
        with clone.pool.open_parent(link) as below:
            assert below.name == parent.name
    with parent.raw() as image:
        assert image.children() == [
            ChildImage(*away, clone.name, clone.image_id, trashed=False)
        ]
    assert clone.read(0, 6) == b"parent"


def test_a_clone_is_as_it_was_asked_for(family: Family) -> None:
    parent = family.flat(size=SIZE + 4096)
    parent.snapshot("s")
    features = ("layering", "exclusive-lock")
    clone = family.clone(parent, snapshot="s", features=features)
    with clone.raw() as image:
        assert image.raw_size() == RawSize(SIZE + 4096)
        assert image.features() == set(features)
        assert image.striping() == Striping()
        expected = ParentLink(parent.path("s"), parent.image_id, RawSize(SIZE + 4096))
        assert image.parent() == expected
        assert image.dependants() == Dependants(0, 0)
    with parent.raw() as image:
        assert image.dependants() == Dependants(1, 1)
        number = image.snapshots()[0].number
    with parent.raw(snapshot=number) as image:
        assert image.dependants() == Dependants(1, 1)
        assert image.parent() is None


def test_a_snapshot_shows_its_own_clones(family: Family) -> None:
    parent = family.flat()
    numbers = [parent.snapshot(name) for name in "ab"]
    clones = [family.clone(parent, snapshot=name) for name in "ab"]
    for number, clone in zip(numbers, clones, strict=True):
        with parent.raw(snapshot=number) as image:
            assert [each.image_id for each in image.children()] == [clone.image_id]
    with parent.raw() as image:
        assert image.dependants() == Dependants(2, 2)


def test_what_cannot_be_cloned(ceph: Ceph, family: Family) -> None:
    parent = family.flat()
    parent.snapshot("s")
    pool, source = parent.pool, parent.path("s")

    def to(name: str, *more: str, data_pool: str = "") -> NewClone:
        return NewClone(name, Striping(), (*FEATURES, *more), data_pool)

    with pytest.raises(AlreadyExistsError):
        pool.clone_image(source, to(parent.name))
    for absent in (
        parent.path("t"),
        SnapshotPath(POOL, NAMESPACE, "contract-absent", "s"),
        SnapshotPath(POOL, "", parent.name, "s"),
        SnapshotPath(POOL, "nosuchnamespace", parent.name, "s"),
        SnapshotPath("nosuchpool", "", parent.name, "s"),
    ):
        with pytest.raises(NotFoundError):
            pool.clone_image(absent, to("contract-absent"))
    with pytest.raises(NotFoundError):
        pool.clone_image(source, to("contract-absent", data_pool="nosuchpool"))
    with pytest.raises(NotFoundError):
        ceph.pool(POOL, "nosuchnamespace").clone_image(source, to("contract-absent"))
    with pytest.raises(InvalidRequestError, match="teleport"):
        pool.clone_image(source, to("contract-absent", "teleport"))
    with pytest.raises(UnsupportedError):
        pool.clone_image(source, NewClone("contract-absent", Striping(), ()))
    assert pool.find_image("contract-absent") is None
    with parent.raw() as image:
        assert image.dependants() == Dependants(1, 0)


def test_a_clone_gets_its_header_once(family: Family, keys: tuple[Key, ...]) -> None:
    pa, pb, pc = keys
    clone = family.clone(family.flat(pa))
    header, other = clone_header(pb.header), clone_header(pc.header)
    with clone.raw() as image:
        covered = image.read_header(FIRST)
        assert covered == pa.header[:FIRST]
        with pytest.raises(HeaderExistsError):
            image.write_clone_header(header, pb.header[:FIRST])
        with pytest.raises(HeaderError):
            image.write_clone_header(bytes(4096), covered)
        with clone.raw(read_only=True) as reader, pytest.raises(InUseError):
            reader.write_clone_header(header, covered)
        image.create_snapshot("s")
        (snapshot,) = image.snapshots()
        with clone.raw(snapshot=snapshot.number) as early, pytest.raises(InUseError):
            early.write_clone_header(header, covered)
        image.remove_snapshot("s")
        assert image.read_header(FIRST) == covered
        image.write_clone_header(header, covered)
        with pytest.raises(HeaderExistsError):
            image.write_clone_header(other, covered)
        # Nothing of the parent shows behind it.
        assert image.read_header(HEADER_ROOM) == header.ljust(HEADER_ROOM, b"\0")


def test_a_header_over_plaintext_covers_it(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    parent = family.flat()
    with parent.raw() as image:
        image.erase_header(HEADER_ROOM)
    clone = family.clone(parent, keys[0])
    with clone.raw() as image, pytest.raises(HeaderExistsError):
        image.write_clone_header(clone_header(keys[1].header), bytes(FIRST))


def test_only_a_clone_that_is_large_enough_takes_its_header(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    header = clone_header(keys[0].header)
    with family.flat().raw() as image:
        with pytest.raises(PreconditionError) as caught:
            image.write_clone_header(header, bytes(FIRST))
        assert not isinstance(caught.value, HeaderExistsError)
        assert image.read_header(FIRST) == bytes(FIRST)
    small = family.clone(family.flat(size=HEADER_ROOM - 4096))
    with small.raw() as image:
        with pytest.raises(SizeError):
            image.write_clone_header(header, bytes(FIRST))
        assert image.read_header(FIRST) == bytes(FIRST)


def test_a_clone_reads_its_parent_to_the_last_byte(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    parent = family.flat(keys[0])
    parent.write(0, b"first")
    parent.write(END - 4, b"last")
    for clone in (family.clone(parent, keys[1]), family.clone(parent)):
        with clone.loaded() as image:
            assert image.size() == EffectiveSize(END)
            assert image.read(0, 5) == b"first"
            assert image.read(END - 4, 4) == b"last"


@pytest.mark.parametrize(
    ("striping", "reserve"),
    [
        (Striping(), 4 * MIB),
        (Striping(MIB, MIB), MIB),
        (Striping(MIB, MIB, 2), 16 * MIB),
        (Striping(4 * MIB, 4 * MIB, 2), 16 * MIB),
        (Striping(64 * KIB, 64 * KIB, 4), 16 * MIB),
    ],
    ids=str,
)
def test_other_header_rooms_and_stripings(
    family: Family,
    striping: Striping,
    reserve: int,
) -> None:
    pa, pb = make_key(reserve), make_key(reserve)
    size = reserve + 12 * MIB
    parent = family.flat(pa, size=size, striping=striping)
    rng = random.Random(3)  # noqa: S311  # test data
    whole = rng.randbytes(12 * MIB)
    parent.write(0, whole)
    clone = family.clone(parent, pb)
    with clone.loaded() as image:
        assert image.size() == EffectiveSize(12 * MIB)
        assert image.read(0, 12 * MIB) == whole
        image.write(5 * MIB - 100, b"across objects" * 20)
        mixed = bytearray(whole)
        mixed[5 * MIB - 100 : 5 * MIB + 180] = b"across objects" * 20
        assert image.read(0, 12 * MIB) == mixed
        image.acquire_lock()
        image.flatten(lambda _done, _total: True)
        assert image.read(0, 12 * MIB) == mixed
    alone = Member(clone.pool, clone.name, clone.image_id, (pb,))
    assert alone.read(0, 12 * MIB) == mixed
    assert parent.read(0, 12 * MIB) == whole


def test_a_write_copies_up_and_touches_nobody_else(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    pa, pb, pc = keys
    parent = family.flat(pa)
    parent.write(0, b"p" * (2 * MIB))
    number = parent.snapshot("s")
    one = family.clone(parent, pb, snapshot="s")
    two = family.clone(parent, pc, snapshot="s")
    parent.write(0, b"later")
    before = one.snapshot("before")
    one.write(MIB + 100, b"one")
    expected = b"p" * 100 + b"one" + b"p" * 1000
    assert one.read(MIB, 1103) == expected
    assert one.read(0, 4096) == b"p" * 4096
    assert one.read(2 * MIB - 4096, 4096) == b"p" * 4096
    for member, at in ((one, before), (two, 0), (parent, number)):
        assert member.read(MIB, 1103, snapshot=at) == b"p" * 1103
    assert parent.read(0, 5) == b"later"
    grandchild = family.clone(one, pc)
    assert grandchild.read(MIB, 1103) == expected
    assert grandchild.read(0, 5) == b"ppppp"


def test_written_zeros_stay_zeros(family: Family, keys: tuple[Key, ...]) -> None:
    """As what was written; what never was is undefined after a copy-up."""
    parent = family.flat(keys[0])
    parent.write(0, bytes(4 * MIB))
    clone = family.clone(parent, keys[1])
    clone.write(MIB, b"x" * 4096)
    found = clone.read(0, 4 * MIB)
    assert found == (bytes(MIB) + b"x" * 4096).ljust(4 * MIB, b"\0")


def test_an_object_that_nobody_wrote_reads_zeros(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    clone = family.clone(family.flat(keys[0]), keys[1])
    clone.write(4 * MIB, b"x" * 4096)
    assert clone.read(0, 4 * MIB) == bytes(4 * MIB)
    assert clone.read(8 * MIB, 4 * MIB) == bytes(4 * MIB)


def test_a_clone_of_plaintext_is_encrypted(
    world: World,
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    """Its header's room is taken from the parent's end, which is lost to it."""
    parent = family.flat()
    world.write_raw(parent.pool, parent.name, b"p" * (50 * MIB))
    middle = family.clone(parent)
    world.write_raw(middle.pool, middle.name, b"middle")
    clone = family.clone(middle, keys[0])
    with clone.loaded() as image:
        assert image.size() == EffectiveSize(END)
        assert image.read(0, 8) == b"middlepp"
        assert image.read(8, END - 8) == b"p" * (END - 8)
        image.write(END - 8, b"last")
        image.grow(EffectiveSize(END + 4 * MIB))
        assert image.read(END - 8, 16) == b"lastpppp" + bytes(8)
    with middle.raw() as image:
        assert image.read_header(8) == b"middlepp"


def test_growing_does_not_bring_back_what_lies_behind(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    parent = family.flat(keys[0])
    parent.write(END - 4096, b"e" * 4096)
    clone = family.clone(parent, keys[1])
    with clone.loaded() as image:
        image.grow(EffectiveSize(60 * MIB))
        assert image.read(END - 4096, 4096) == b"e" * 4096
        assert image.read(END, 12 * MIB) == bytes(12 * MIB)
        image.write(END, b"own")
    with clone.raw() as image:
        link = image.parent()
        assert link is not None
        assert link.overlap == RawSize(SIZE)
        assert image.raw_size() == RawSize(76 * MIB)


@pytest.mark.parametrize("left", [10 * MIB, 10 * MIB + 4096, 8 * MIB], ids=str)
def test_shrinking_narrows_what_is_read_of_the_parent(
    family: Family,
    keys: tuple[Key, ...],
    left: int,
) -> None:
    parent = family.flat(keys[0])
    parent.write(8 * MIB, b"p" * (8 * MIB))
    clone = family.clone(parent, keys[1])
    number = clone.snapshot("before")
    with clone.loaded() as image:
        with pytest.raises(InUseError):
            image.shrink(EffectiveSize(left))
        image.acquire_lock()
        with pytest.raises(SizeError):
            image.shrink(EffectiveSize(END + 1))
        image.shrink(EffectiveSize(END))
        image.write(left + 4096, b"own")
        image.shrink(EffectiveSize(left))
        assert image.size() == EffectiveSize(left)
        with pytest.raises(SizeError):
            image.read(left - 1, 2)
        image.grow(EffectiveSize(END))
        assert image.read(left, END - left) == bytes(END - left)
        kept = left - 8 * MIB
        assert image.read(8 * MIB, kept) == b"p" * kept
    with clone.raw() as image:
        link = image.parent()
        assert link is not None
        assert link.overlap == RawSize(left + 16 * MIB)
    assert clone.read(left, 4096, snapshot=number) == (
        b"p" * min(4096, 16 * MIB - left)
    )
    assert parent.read(8 * MIB, 8 * MIB) == b"p" * (8 * MIB)
