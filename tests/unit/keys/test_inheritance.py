# SPDX-License-Identifier: Apache-2.0
"""Which keys a clone's ring takes over, and that nothing is left unwiped."""

from __future__ import annotations

from contextlib import closing

import pytest

from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import RecordError
from csi_driver.domain.keyring import Purpose
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.inheritance import ForeignPassphrases
from csi_driver.keys.inheritance import NoKeys
from csi_driver.keys.inheritance import RingKeys
from csi_driver.keys.material import RandomKey
from csi_driver.keys.ring import OpenRing
from csi_driver.keys.ring import empty_ring
from csi_driver.keys.ring import new_dek
from csi_driver.keys.ring import open_ring

OWN = "00000000-0000-4000-8000-000000000001"
BELOW = "00000000-0000-4000-8000-000000000002"
LOWEST = "00000000-0000-4000-8000-000000000003"


def key(letter: bytes) -> RandomKey:
    """Return a key, anew each time: whoever uses it wipes it."""
    return RandomKey(SecretBytes(letter * 32))


def source_ring() -> OpenRing:
    """Return the open ring of a clone over a foreign image."""
    ring = empty_ring(key(b"s"))
    ring.add_dek(BELOW, new_dek())
    ring.add_passphrase(LOWEST, SecretBytes(b"theirs"), LuksFormat.ANY)
    return ring


def test_nothing_is_inherited_from_plaintext() -> None:
    with closing(NoKeys()) as nothing, empty_ring(key(b"c")) as ring:
        nothing.give(ring)
        assert nothing.layers == ()
        assert ring.ring.entries == ()


def test_a_ring_gives_all_of_its_layers_under_the_clones_key() -> None:
    source = source_ring()
    expected = {name: each.reveal() for name, each in source.passphrases().items()}
    with (
        closing(RingKeys(source, (BELOW, LOWEST))) as inherited,
        empty_ring(key(b"c")) as ring,
    ):
        ring.add_dek(OWN, new_dek())
        inherited.give(ring)
        made = ring.ring
    # The source's key opens nothing any more once it is closed.
    with pytest.raises(ValueError, match="was closed"):
        source.key_for(BELOW)
    with open_ring(made, key(b"c")) as opened:
        found = {name: each.reveal() for name, each in opened.passphrases().items()}
    assert {name: found[name] for name in expected} == expected
    entries = {entry.header_uuid: entry for entry in made.entries}
    assert entries[BELOW].purpose is Purpose.DEK
    assert entries[LOWEST].purpose is Purpose.PASSPHRASE
    assert entries[LOWEST].layer_format is LuksFormat.ANY


def test_only_the_keys_of_the_chain_are_given() -> None:
    """A snapshot from after a flatten needs fewer than its volume's ring has."""
    with (
        closing(RingKeys(source_ring(), (BELOW,))) as inherited,
        empty_ring(key(b"c")) as ring,
    ):
        inherited.give(ring)
        assert [each.header_uuid for each in ring.ring.entries] == [BELOW]


def test_one_header_may_stand_in_several_layers() -> None:
    layers = (BELOW, BELOW, LOWEST)
    with (
        closing(RingKeys(source_ring(), layers)) as inherited,
        empty_ring(key(b"c")) as ring,
    ):
        inherited.give(ring)
        assert [each.header_uuid for each in ring.ring.entries] == [BELOW, LOWEST]
    same = (SecretBytes(b"a"), SecretBytes(b"a"))
    with (
        closing(ForeignPassphrases((BELOW, BELOW), same)) as foreign,
        empty_ring(key(b"c")) as ring,
    ):
        foreign.give(ring)
        assert [each.header_uuid for each in ring.ring.entries] == [BELOW]


def test_a_missing_key_is_told() -> None:
    with (
        closing(RingKeys(source_ring(), (OWN,))) as inherited,
        empty_ring(key(b"c")) as ring,
        pytest.raises(RecordError, match=OWN),
    ):
        inherited.give(ring)


def test_foreign_passphrases_go_in_with_any_format_and_are_wiped() -> None:
    passphrases = (SecretBytes(b"upper"), SecretBytes(b"lower"))
    foreign = ForeignPassphrases((BELOW, LOWEST), passphrases)
    assert "upper" not in repr(foreign)
    with closing(foreign), empty_ring(key(b"c")) as ring:
        foreign.give(ring)
        assert ring.key_for(BELOW).reveal() == b"upper"
        assert ring.key_for(LOWEST).reveal() == b"lower"
        assert {each.layer_format for each in ring.ring.entries} == {LuksFormat.ANY}
    assert [len(each) for each in passphrases] == [0, 0]
