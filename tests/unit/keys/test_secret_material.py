# SPDX-License-Identifier: Apache-2.0
"""What a Secret may hold, and what is said about one that does not fit."""

from __future__ import annotations

import base64
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.errors import SecretError
from csi_driver.domain.keyring import LONGEST_PASSPHRASE
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.material import Passphrase
from csi_driver.keys.material import RandomKey
from csi_driver.keys.material import SecretPrefix
from csi_driver.keys.material import find_key_source
from csi_driver.keys.material import newline_hint
from csi_driver.keys.material import parse_ceph_user
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.material import parse_layer_passphrases

CANARY = "canary-Zm9vYmFy"
KEY = base64.b64encode(bytes(range(32))).decode()


def _context_free(error: BaseException) -> bool:
    """Tell whether text, context and cause of an error hide the canary."""
    seen: list[BaseException | None] = [error, error.__context__, error.__cause__]
    texts = [repr(vars(e)) + repr(e.args) for e in seen if e is not None]
    return CANARY not in "".join(texts) + "".join(traceback.format_exception(error))


@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"),
        min_size=1,
        max_size=LONGEST_PASSPHRASE // 4,
    )
)
def test_any_text_is_a_passphrase(text: str) -> None:
    source = parse_key_source({"encryptionPassphrase": text, "other": "x"})
    assert source == Passphrase(SecretBytes(text.encode()))


@given(st.binary(min_size=32, max_size=32))
def test_any_32_bytes_are_a_key(key: bytes) -> None:
    secrets = {"encryptionKey": base64.b64encode(key).decode()}
    assert parse_key_source(secrets) == RandomKey(SecretBytes(key))


def test_the_source_has_names_of_its_own() -> None:
    secrets = {"sourceEncryptionKey": KEY, "encryptionPassphrase": "own"}
    source = parse_key_source(secrets, SecretPrefix.SOURCE)
    assert source == RandomKey(SecretBytes(bytes(range(32))))
    assert parse_key_source(secrets) == Passphrase(SecretBytes(b"own"))


def test_an_absent_source_is_none() -> None:
    assert find_key_source({"encryptionKey": KEY}, SecretPrefix.SOURCE) is None


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({}, "no Secret came with the call, .*provisioner-secret-name"),
        ({"passphrase": CANARY}, "neither"),
        ({"encryptionPassphrase": CANARY, "encryptionKey": KEY}, "both"),
        ({"encryptionPassphrase": CANARY, "encryptionKey": ""}, "both"),
        ({"encryptionPassphrase": ""}, "empty"),
        ({"encryptionPassphrase": CANARY + "\n"}, "printf"),
        ({"encryptionPassphrase": CANARY + "\r\n"}, "printf"),
        ({"encryptionPassphrase": "\n"}, "printf"),
        ({"encryptionPassphrase": CANARY + "\0x"}, "NUL"),
        ({"encryptionPassphrase": CANARY + "\ud800"}, "UTF-8"),
        ({"encryptionPassphrase": CANARY + "x" * LONGEST_PASSPHRASE}, "more than 1024"),
        ({"encryptionPassphrase": "ä" * 513}, "1026 bytes"),
        ({"encryptionKey": ""}, "exactly 32 bytes"),
        ({"encryptionKey": KEY + "\n"}, "printf"),
        ({"encryptionKey": " " + KEY[1:]}, "exactly 32 bytes"),
        ({"encryptionKey": KEY[:-4]}, "exactly 32 bytes"),
        ({"encryptionKey": KEY.rstrip("=") + "A"}, "exactly 32 bytes"),
        ({"encryptionKey": KEY[:-3] + "A=="}, "exactly 32 bytes"),
        ({"encryptionKey": KEY[:-2] + "9="}, "exactly 32 bytes"),
        ({"encryptionKey": base64.b64encode(bytes(33)).decode()}, "exactly 32 bytes"),
        ({"encryptionKey": base64.urlsafe_b64encode(b"\xff" * 32).decode()}, "exactly"),
        ({"encryptionKey": CANARY}, "exactly 32 bytes"),
        ({"encryptionKey": "\u0660" * 43 + "="}, "exactly 32 bytes"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    secrets: dict[str, str], said: str
) -> None:
    with pytest.raises(SecretError, match=said) as caught:
        parse_key_source(secrets)
    assert _context_free(caught.value)


def test_layers_come_own_layer_first() -> None:
    secrets = {
        "encryptionPassphrase.2": "grandparent",
        "encryptionPassphrase": "own",
        "encryptionPassphrase.1": "parent\n",
        "userID": "x",
    }
    found = [p.reveal() for p in parse_layer_passphrases(secrets)]
    assert found == [b"own", b"parent\n", b"grandparent"]


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({}, "no encryptionPassphrase"),
        ({"encryptionPassphrase.1": CANARY}, "no encryptionPassphrase,"),
        (
            {"encryptionPassphrase": CANARY, "encryptionPassphrase.2": CANARY},
            r"no encryptionPassphrase\.1",
        ),
        ({"encryptionPassphrase": CANARY, "encryptionKey": KEY}, "others formatted"),
        ({"encryptionPassphrase": ""}, "empty"),
        ({"encryptionPassphrase": CANARY, "encryptionPassphrase.1": ""}, "1 is empty"),
        ({"encryptionPassphrase": CANARY + "\0"}, "NUL"),
        *[
            (
                {"encryptionPassphrase": CANARY, f"encryptionPassphrase.{n}": "x"},
                "names",
            )
            for n in ("0", "01", "-1", "x", "", "16", "1.1", "\u0661", "1\n")
        ],
    ],
)
def test_wrong_layers_are_refused(secrets: dict[str, str], said: str) -> None:
    with pytest.raises(SecretError, match=said) as caught:
        parse_layer_passphrases(secrets)
    assert _context_free(caught.value)


def test_newline_hint_names_the_layer() -> None:
    assert newline_hint([SecretBytes(b"a"), SecretBytes(b"b")]) == ""
    hint = newline_hint([SecretBytes(b"a"), SecretBytes(CANARY.encode() + b"\n")])
    assert "layer 1" in hint
    assert CANARY not in hint


def test_ceph_user_is_optional() -> None:
    assert parse_ceph_user({"encryptionPassphrase": "x"}) is None


def test_ceph_user() -> None:
    key = "AQBQdFtbAAAAABAAJ5rMqSdHGmrkx1SFjiTlVQ=="
    user = parse_ceph_user({"userID": "tenant", "userKey": key})
    assert user == CephUser("tenant", SecretBytes(key.encode()))
    assert key not in repr(user)


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({"userID": "x"}, "lacks its userKey"),
        ({"userKey": CANARY}, "lacks its userID"),
        ({"userID": "client.x", "userKey": "AAAA"}, "prefix"),
        ({"userID": "", "userKey": "AAAA"}, "userID is not"),
        ({"userID": "a b", "userKey": "AAAA"}, "userID is not"),
        ({"userID": "x" * 129, "userKey": "AAAA"}, "userID is not"),
        ({"userID": "x\n", "userKey": "AAAA"}, "printf"),
        ({"userID": "x", "userKey": "AAAA\n"}, "printf"),
        ({"userID": "x", "userKey": ""}, "cephx key"),
        ({"userID": "x", "userKey": CANARY}, "cephx key"),
        ({"userID": "x", "userKey": "A" * 257}, "cephx key"),
    ],
)
def test_wrong_ceph_users_are_refused(secrets: dict[str, str], said: str) -> None:
    with pytest.raises(SecretError, match=said) as caught:
        parse_ceph_user(secrets)
    assert _context_free(caught.value)


def test_nothing_parsed_shows_itself() -> None:
    source = parse_key_source({"encryptionPassphrase": CANARY})
    layers = parse_layer_passphrases({"encryptionPassphrase": CANARY})
    assert CANARY not in f"{source!r} {source} {layers!r} {layers}"
