# SPDX-License-Identifier: Apache-2.0
"""Chains: which specs open them, how they are read from Ceph, how deep they go."""

from __future__ import annotations

import pytest

from csi_driver.domain.chain import DEEPEST_CHAIN
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import specs_for
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Striping
from csi_driver.images.chains import read_chain
from csi_driver.images.port import Ceph
from tests.contract.images.family import Family
from tests.contract.images.family import Key
from tests.contract.images.family import Member
from tests.contract.images.family import specs_of
from tests.contract.images.worlds import OTHER_POOL
from tests.contract.images.worlds import POOL

NAMES = ("A", "B", "C", "D", "P", "plain")


@pytest.fixture
def members(family: Family, keys: tuple[Key, ...]) -> dict[str, Member]:
    """Make A, flat; B, its formatted clone; C, B's and D, A's unformatted clone.

    P is a formatted clone of a plaintext clone of a plaintext image.
    """
    pa, pb, pd = keys
    a = family.flat(pa)
    b = family.clone(a, pb)
    plain = family.clone(family.flat())
    return {
        "A": a,
        "B": b,
        "C": family.clone(b),
        "D": family.clone(a),
        "P": family.clone(plain, pd),
        "plain": plain,
    }


def test_the_specs_that_open_a_chain(
    members: dict[str, Member],
    keys: tuple[Key, ...],
) -> None:
    table: list[tuple[str, str, type[DriverError] | None]] = [
        ("A", "a", None),
        ("B", "ba", None),
        ("B", "b", SecretError),
        ("B", "a", SecretError),
        ("B", "ab", SecretError),
        ("B", "bb", SecretError),
        ("B", "baa", HeaderError),
        ("C", "bba", None),
        ("C", "b", SecretError),
        ("C", "ba", SecretError),
        ("C", "bb", SecretError),
        ("C", "a", SecretError),
        ("C", "bbaa", HeaderError),
        ("D", "a", None),
        ("D", "aa", None),
        ("D", "aaa", HeaderError),
        ("D", "ab", SecretError),
        ("P", "p", None),
        ("P", "pp", HeaderError),
        ("P", "pa", HeaderError),
        ("P", "a", SecretError),
        ("plain", "p", HeaderError),
    ]
    by_letter = dict(zip("abp", keys, strict=True))
    for name, letters, error in table:
        member = members[name]
        specs = specs_of(*(by_letter[letter] for letter in letters))
        if error is None:
            member.pool.open_loaded(member.image_id, specs).close()
            continue
        with pytest.raises(error):
            member.pool.open_loaded(member.image_id, specs)
    for name in "CDP":
        members[name].pool.remove_image(members[name].name)  # no handle is left


def test_a_chain_is_read_as_it_is(
    members: dict[str, Member],
    keys: tuple[Key, ...],
) -> None:
    pa, pb, pd = (key.uuid for key in keys)
    a, b, c, d, p, plain = (members[name].image_id for name in NAMES)
    flat, clone, none = HeaderKind.LUKS2, HeaderKind.CLONE_LUKS2, HeaderKind.NONE
    expected = {
        "A": [Layer(a, flat, pa)],
        "B": [Layer(b, clone, pb), Layer(a, flat, pa)],
        "C": [Layer(c, clone, pb), Layer(b, clone, pb), Layer(a, flat, pa)],
        "D": [Layer(d, flat, pa), Layer(a, flat, pa)],
        "P": [Layer(p, clone, pd), Layer(plain, none)],
    }
    secrets = {key.uuid: key.dek for key in keys}
    for name, layers in expected.items():
        member = members[name]
        found = read_chain(member.pool, member.image_id)
        assert list(found[: len(layers)]) == layers
        member.pool.open_loaded(member.image_id, specs_for(found, secrets)).close()
    assert [each.kind for each in read_chain(members["P"].pool, p)][1:] == [none, none]
    with pytest.raises(NotFoundError):
        read_chain(members["A"].pool, "abcdef0123")


def test_a_snapshot_has_the_chain_of_its_time(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    pa, pb, _ = keys
    a = family.flat(pa)
    b = family.clone(a, pb)
    number = b.snapshot("s")
    with b.loaded() as image:
        image.acquire_lock()
        image.flatten(lambda _done, _total: True)
    own, base = Layer(b.image_id, HeaderKind.CLONE_LUKS2, pb.uuid), a.image_id
    assert read_chain(b.pool, b.image_id, snapshot=number) == (
        own,
        Layer(base, HeaderKind.LUKS2, pa.uuid),
    )
    assert read_chain(b.pool, b.image_id) == (
        Layer(b.image_id, HeaderKind.LUKS2, pb.uuid),
    )


def test_a_chain_across_places_and_lingering_snapshots(
    ceph: Ceph,
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    pa, pb, pc = keys
    a = family.flat(pa, into=ceph.pool(OTHER_POOL))
    a.write(0, b"base")
    a.snapshot("s")
    b = family.clone(a, pb, snapshot="s", into=ceph.pool(POOL))
    a.drop("s")
    b.snapshot("s")
    c = family.clone(b, pc, snapshot="s")
    b.drop("s")
    layers = read_chain(c.pool, c.image_id)
    assert [each.image_id for each in layers] == [c.image_id, b.image_id, a.image_id]
    assert [each.key for each in layers] == [pc.uuid, pb.uuid, pa.uuid]
    assert c.read(0, 4) == b"base"


def test_the_deepest_chain_loads(family: Family, keys: tuple[Key, ...]) -> None:
    member = family.flat(keys[0])
    member.write(0, b"base" * 2048)
    for depth in range(1, DEEPEST_CHAIN):
        # Every fourth one is not formatted.
        key = keys[depth % len(keys)] if depth % 4 else None
        member = family.clone(member, key)
        if depth in {1, 8}:
            member.write(depth * 4096, b"at %02d" % depth)
    assert len(read_chain(member.pool, member.image_id)) == DEEPEST_CHAIN
    with member.loaded() as image:
        assert image.read(0, 4096) == b"base" * 1024
        assert image.read(4096, 5) == b"at 01"
        assert image.read(8 * 4096, 5) == b"at 08"
        image.write(100, b"own")
        assert image.read(96, 12) == b"baseowne" + b"base"
        image.acquire_lock()
        image.flatten(lambda _done, _total: True)
    alone = Member(member.pool, member.name, member.image_id, member.keys[:1])
    assert alone.read(96, 12) == b"baseowne" + b"base"
    assert alone.read(8 * 4096, 5) == b"at 08"


def test_small_stripe_units_are_refused_where_they_are_encrypted(
    family: Family,
    keys: tuple[Key, ...],
) -> None:
    striping = Striping(4 * MIB, MIB, 4)
    plain = family.flat(striping=striping)
    assert [each.kind for each in read_chain(plain.pool, plain.image_id)] == [
        HeaderKind.NONE
    ]
    encrypted = family.flat(keys[0], striping=striping)
    clone = family.clone(encrypted)
    for member in (encrypted, clone):
        with pytest.raises(UnsupportedError):
            read_chain(member.pool, member.image_id)
