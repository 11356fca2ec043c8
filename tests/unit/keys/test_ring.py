# SPDX-License-Identifier: Apache-2.0
"""The life of a ring: made, opened, extended by a clone, rewrapped, refused."""

from __future__ import annotations

import dataclasses
import json
import logging
import traceback
import uuid

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine
from hypothesis.stateful import invariant
from hypothesis.stateful import precondition
from hypothesis.stateful import rule

from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.keyring import Purpose
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.material import Passphrase
from csi_driver.keys.material import RandomKey
from csi_driver.keys.ring import empty_ring
from csi_driver.keys.ring import new_ring
from csi_driver.keys.ring import open_ring
from csi_driver.keys.ring import rewrap

OTHER = str(uuid.UUID(int=7))
CANARY = b"canary-parent-passphrase"


def test_a_passphrase_opens_its_ring_from_the_record(header: str) -> None:
    ring, dek = new_ring(Passphrase(SecretBytes(b"correct horse")), header)
    stored = KeyRing.from_json_object(json.loads(json.dumps(ring.to_json_object())))
    with open_ring(stored, Passphrase(SecretBytes(b"correct horse"))) as opened:
        assert opened.key_for(header) == dek
    assert len(dek) == 32


@given(st.binary(min_size=32, max_size=32), st.uuids())
def test_a_key_opens_its_ring(key: bytes, header: uuid.UUID) -> None:
    ring, dek = new_ring(RandomKey(SecretBytes(key)), str(header))
    with open_ring(ring, RandomKey(SecretBytes(key))) as opened:
        assert opened.passphrases() == {str(header): dek}


def test_rings_share_nothing(random_key: RandomKey, header: str) -> None:
    rings = [new_ring(random_key, header) for _ in range(20)]
    assert len({ring.fingerprint for ring, _ in rings}) == 20
    assert len({dek.reveal() for _, dek in rings}) == 20


def test_a_wrong_secret_is_named_before_any_unwrap(
    random_key: RandomKey, header: str
) -> None:
    ring, _ = new_ring(random_key, header)
    # No entry could be unwrapped from this one: the check comes first.
    broken = dataclasses.replace(
        ring, entries=(dataclasses.replace(ring.entries[0], nonce=bytes(12)),)
    )
    wrong = RandomKey(SecretBytes(b"w" * 32))
    with pytest.raises(SecretError, match=ring.fingerprint) as caught:
        open_ring(broken, wrong)
    twin = empty_ring(wrong)
    assert twin.ring.fingerprint != ring.fingerprint
    assert "has the fingerprint" in str(caught.value)


def test_an_altered_entry_is_noticed(random_key: RandomKey, header: str) -> None:
    ring, _ = new_ring(random_key, header)
    altered = dataclasses.replace(
        ring, entries=(dataclasses.replace(ring.entries[0], nonce=bytes(12)),)
    )
    with (
        open_ring(altered, random_key) as opened,
        pytest.raises(RecordError, match="altered"),
    ):
        opened.key_for(header)


def test_an_entry_of_another_volume_is_noticed(
    random_key: RandomKey, header: str
) -> None:
    ring, _ = new_ring(random_key, header)
    other, _ = new_ring(random_key, header)
    mixed = dataclasses.replace(ring, entries=other.entries)
    with (
        open_ring(mixed, random_key) as opened,
        pytest.raises(RecordError, match="altered"),
    ):
        opened.passphrases()


def test_an_unknown_header_is_named(random_key: RandomKey, header: str) -> None:
    ring, _ = new_ring(random_key, header)
    with (
        open_ring(ring, random_key) as opened,
        pytest.raises(RecordError, match=OTHER),
    ):
        opened.key_for(OTHER)


def test_a_clone_needs_only_its_own_secret(random_key: RandomKey, header: str) -> None:
    parent, parent_dek = new_ring(random_key, header)
    own = RandomKey(SecretBytes(b"o" * 32))
    clone, clone_dek = new_ring(own, OTHER)
    with open_ring(parent, random_key) as source, open_ring(clone, own) as opened:
        opened.add_from(source, [header])
        clone = opened.ring
    with open_ring(clone, own) as opened:
        assert opened.passphrases() == {OTHER: clone_dek, header: parent_dek}


def test_a_foreign_ancestor_keeps_format_and_length(
    random_key: RandomKey, header: str
) -> None:
    ring, dek = new_ring(random_key, header)
    with open_ring(ring, random_key) as opened:
        opened.add_passphrase(OTHER, SecretBytes(CANARY), LuksFormat.LUKS1)
        ring = opened.ring
    entry = ring.entry_for(OTHER)
    assert entry is not None
    assert (entry.purpose, entry.layer_format) == (Purpose.PASSPHRASE, LuksFormat.LUKS1)
    with open_ring(ring, random_key) as opened:
        assert opened.passphrases() == {header: dek, OTHER: SecretBytes(CANARY)}


def test_one_key_for_each_header(random_key: RandomKey, header: str) -> None:
    ring, dek = new_ring(random_key, header)
    with open_ring(ring, random_key) as opened:
        with pytest.raises(RecordError, match="two keys"):
            opened.add_dek(header, SecretBytes(bytes(32)))
        assert opened.key_for(header) == dek


def test_rewrapping_changes_the_secret_and_nothing_else(
    random_key: RandomKey, header: str
) -> None:
    ring, dek = new_ring(random_key, header)
    fresh = RandomKey(SecretBytes(b"n" * 32))
    with open_ring(ring, random_key) as opened:
        opened.add_passphrase(OTHER, SecretBytes(CANARY), LuksFormat.ANY)
        rewrapped = rewrap(opened, fresh)
    with open_ring(rewrapped, fresh) as opened:
        assert opened.passphrases() == {header: dek, OTHER: SecretBytes(CANARY)}
    with pytest.raises(SecretError):
        open_ring(rewrapped, random_key)
    assert {e.nonce for e in ring.entries} & {
        e.nonce for e in rewrapped.entries
    } == set()


def test_a_closed_ring_opens_nothing(random_key: RandomKey, header: str) -> None:
    ring, _ = new_ring(random_key, header)
    opened = open_ring(ring, random_key)
    opened.close()
    with pytest.raises(ValueError, match="closed"):
        opened.key_for(header)
    with pytest.raises(ValueError, match="closed"):
        opened.add_dek(OTHER, SecretBytes(bytes(32)))


def test_no_text_shows_a_secret(
    header: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    source = Passphrase(SecretBytes(CANARY))
    ring, dek = new_ring(source, header)
    texts = [repr(ring), repr(source), repr(dek), str(ring.to_json_object())]
    with open_ring(ring, source) as opened:
        texts += [repr(opened), repr(opened.passphrases())]
    for wrong in (
        Passphrase(SecretBytes(CANARY + b"x")),
        RandomKey(SecretBytes(CANARY)),
    ):
        with pytest.raises(SecretError) as caught:
            open_ring(ring, wrong)
        texts += ["".join(traceback.format_exception(caught.value))]
    texts += [caplog.text, *capfd.readouterr()]
    spoken = "\n".join(texts).encode()
    for secret in (CANARY, dek.reveal()):
        assert secret not in spoken
        assert secret.hex().encode() not in spoken
        assert repr(secret).encode() not in spoken


class RingMachine(RuleBasedStateMachine):
    """Any order of additions, removals, rewraps and reloads keeps every key."""

    def __init__(self) -> None:
        super().__init__()
        self.source = RandomKey(SecretBytes(b"0" * 32))
        self.opened = empty_ring(self.source)
        self.model: dict[str, bytes] = {}

    @rule(header=st.uuids().map(str), dek=st.binary(min_size=32, max_size=32))
    def add_dek(self, header: str, dek: bytes) -> None:
        if header not in self.model:
            self.opened.add_dek(header, SecretBytes(dek))
            self.model[header] = dek

    @rule(
        header=st.uuids().map(str),
        secret=st.binary(min_size=1, max_size=80),
        layer_format=st.sampled_from(LuksFormat),
    )
    def add_passphrase(
        self, header: str, secret: bytes, layer_format: LuksFormat
    ) -> None:
        if header not in self.model:
            self.opened.add_passphrase(header, SecretBytes(secret), layer_format)
            self.model[header] = secret

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        header = data.draw(st.sampled_from(sorted(self.model)))
        self.opened.drop([header])
        del self.model[header]

    @rule()
    def reload(self) -> None:
        stored = json.dumps(self.opened.ring.to_json_object())
        self.opened.close()
        ring = KeyRing.from_json_object(json.loads(stored))
        self.opened = open_ring(ring, self.source)

    @rule(key=st.binary(min_size=32, max_size=32))
    def change_secret(self, key: bytes) -> None:
        fresh = RandomKey(SecretBytes(key))
        ring = rewrap(self.opened, fresh)
        self.opened.close()
        self.source, self.opened = fresh, open_ring(ring, fresh)

    @invariant()
    def every_key_is_there(self) -> None:
        found = {h: key.reveal() for h, key in self.opened.passphrases().items()}
        assert found == self.model


RingMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20)
TestRingMachine = RingMachine.TestCase
