# SPDX-License-Identifier: Apache-2.0
"""The ring's JSON form: everything valid survives, everything else is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import RecordError
from csi_driver.domain.keyring import LEAST_MEMORY_KIB
from csi_driver.domain.keyring import LEAST_PASSES
from csi_driver.domain.keyring import LONGEST_PASSPHRASE
from csi_driver.domain.keyring import MOST_ENTRIES
from csi_driver.domain.keyring import MOST_LANES
from csi_driver.domain.keyring import MOST_MEMORY_KIB
from csi_driver.domain.keyring import MOST_PASSES
from csi_driver.domain.keyring import TAG_BYTES
from csi_driver.domain.keyring import KdfKind
from csi_driver.domain.keyring import KdfParameters
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.keyring import Purpose
from csi_driver.domain.keyring import WrappedKey

_salts = st.binary(min_size=16, max_size=16)
_nonces = st.binary(min_size=12, max_size=12)
_headers = st.uuids().map(str)
_kdfs = st.one_of(
    st.builds(KdfParameters, st.just(KdfKind.HKDF_SHA256), _salts),
    st.builds(
        KdfParameters,
        st.just(KdfKind.ARGON2ID),
        _salts,
        st.integers(LEAST_MEMORY_KIB, MOST_MEMORY_KIB),
        st.integers(LEAST_PASSES, MOST_PASSES),
        st.integers(1, MOST_LANES),
    ),
)
_entries = st.one_of(
    st.builds(
        WrappedKey,
        st.just(Purpose.DEK),
        _headers,
        _nonces,
        st.binary(min_size=32 + TAG_BYTES, max_size=32 + TAG_BYTES),
    ),
    st.builds(
        WrappedKey,
        st.just(Purpose.PASSPHRASE),
        _headers,
        _nonces,
        st.binary(min_size=1 + TAG_BYTES, max_size=LONGEST_PASSPHRASE + TAG_BYTES),
        st.sampled_from(LuksFormat),
    ),
)
_rings = st.builds(
    KeyRing,
    _kdfs,
    st.from_regex(r"[0-9a-f]{4}(-[0-9a-f]{4}){3}", fullmatch=True),
    st.lists(_entries, max_size=6, unique_by=lambda e: e.header_uuid).map(tuple),
)

type Json = dict[str, Any]


def _valid() -> Json:
    ring = KeyRing(
        KdfParameters(KdfKind.ARGON2ID, bytes(16), 65536, 3, 2),
        "a1b2-c3d4-e5f6-0718",
        (
            WrappedKey(
                Purpose.DEK,
                "00000000-0000-0000-0000-000000000001",
                bytes(12),
                bytes(48),
            ),
            WrappedKey(
                Purpose.PASSPHRASE,
                "00000000-0000-0000-0000-000000000002",
                bytes(12),
                bytes(20),
                LuksFormat.LUKS1,
            ),
        ),
    )
    value: Json = json.loads(json.dumps(ring.to_json_object()))
    return value


@given(_rings)
def test_json_round_trip(ring: KeyRing) -> None:
    text = json.dumps(ring.to_json_object(), ensure_ascii=False)
    assert text.isascii()
    assert KeyRing.from_json_object(json.loads(text)) == ring


def _set(*path: str | int) -> Callable[[Json, object], None]:
    def change(ring: Json, value: object) -> None:
        place: Any = ring
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("version",), 2, "version 2"),
        (("version",), True, "not an integer"),
        (("version",), "1", "not an integer"),
        (("surplus",), 1, "surplus"),
        (("fingerprint",), "A1B2-c3d4-e5f6-0718", "fingerprint"),
        (("fingerprint",), "a1b2-c3d4-e5f6-0718\n", "fingerprint"),
        (("fingerprint",), 7, "not a string"),
        (("keys",), {}, "no list"),
        (("keys", 0), [], "not a JSON object"),
        (("keys", 0, "surplus"), 1, "surplus"),
        (("keys", 0, "purpose"), "kek", "'kek'"),
        (("keys", 0, "purpose"), "passphrase", "lacks format"),
        (("keys", 0, "format"), "luks2", "unknown fields: format"),
        (("keys", 1, "format"), "plain", "'plain'"),
        (("keys", 1, "format"), None, "not a string"),
        (("keys", 0, "header"), "../../etc", "UUID"),
        (("keys", 0, "header"), "00000000-0000-0000-0000-00000000000g", "UUID"),
        (("keys", 0, "header"), "00000000-0000-0000-0000-000000000002", "two keys"),
        (("keys", 0, "nonce"), "AAAA", "nonce has 3"),
        (("keys", 0, "nonce"), "not base64!", "not base64"),
        (("keys", 0, "nonce"), "AAAAA", "not base64"),
        (("keys", 0, "ciphertext"), "", "length"),
        (("keys", 0, "ciphertext"), base64.b64encode(bytes(49)).decode(), "is 33"),
        (("keys", 1, "ciphertext"), base64.b64encode(bytes(16)).decode(), "is 0"),
        (("keys", 1, "ciphertext"), "A" * 1_000_000, "longer"),
        (("kdf",), None, "not a JSON object"),
        (("kdf", "surplus"), 0, "surplus"),
        (("kdf", "kind"), "pbkdf2", "'pbkdf2'"),
        (("kdf", "kind"), None, "not a string"),
        (("kdf", "kind"), "hkdf-sha256", "unknown fields: lanes, memory_kib"),
        (("kdf", "salt"), "AAAA", "salt has 3"),
        (("kdf", "salt"), "AAAAAAAAAAAAAAAAAAAAAB==", "canonical"),
        (("kdf", "salt"), "AAAA\u00e4", "not base64"),
        (("kdf", "memory_kib"), LEAST_MEMORY_KIB - 1, "memory_kib"),
        (("kdf", "memory_kib"), MOST_MEMORY_KIB + 1, "memory_kib"),
        (("kdf", "memory_kib"), 2**63, "memory_kib"),
        (("kdf", "memory_kib"), 65536.0, "not an integer"),
        (("kdf", "passes"), LEAST_PASSES - 1, "passes"),
        (("kdf", "passes"), MOST_PASSES + 1, "passes"),
        (("kdf", "passes"), True, "not an integer"),
        (("kdf", "lanes"), 0, "lanes"),
        (("kdf", "lanes"), MOST_LANES + 1, "lanes"),
    ],
)
def test_each_deviation_is_refused(
    path: tuple[str | int, ...], value: object, said: str
) -> None:
    ring = _valid()
    KeyRing.from_json_object(ring)  # valid so far
    _set(*path)(ring, value)
    with pytest.raises(RecordError, match=said) as caught:
        KeyRing.from_json_object(ring)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["version", "kdf", "fingerprint", "keys"])
def test_a_missing_field_is_refused(name: str) -> None:
    ring = _valid()
    del ring[name]
    with pytest.raises(RecordError, match=name):
        KeyRing.from_json_object(ring)


def test_too_many_keys_are_refused() -> None:
    ring = _valid()
    ring["keys"] = ring["keys"] * MOST_ENTRIES
    with pytest.raises(RecordError, match=str(MOST_ENTRIES)):
        KeyRing.from_json_object(ring)


@pytest.mark.parametrize(
    ("purpose", "layer_format"),
    [(Purpose.DEK, LuksFormat.LUKS2), (Purpose.PASSPHRASE, None)],
)
def test_only_a_passphrase_names_a_format(
    purpose: Purpose, layer_format: LuksFormat | None
) -> None:
    header = "00000000-0000-0000-0000-000000000001"
    with pytest.raises(RecordError, match="names its LUKS format"):
        WrappedKey(purpose, header, bytes(12), bytes(48), layer_format)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(_json)
def test_arbitrary_json_is_refused_and_never_crashes(value: object) -> None:
    with pytest.raises(RecordError):
        KeyRing.from_json_object(value)


@given(st.data())
def test_an_arbitrary_value_anywhere_is_refused_or_read(data: st.DataObject) -> None:
    ring = _valid()
    paths: list[tuple[str | int, ...]] = [
        *[(name,) for name in ring],
        *[("kdf", name) for name in ring["kdf"]],
        *[("keys", i, name) for i in (0, 1) for name in ring["keys"][i]],
    ]
    _set(*data.draw(st.sampled_from(paths)))(ring, data.draw(_json))
    try:
        read = KeyRing.from_json_object(ring)
    except RecordError:
        return
    assert read.to_json_object() == ring
