# SPDX-License-Identifier: Apache-2.0
"""A wrapped key opens in its own place only, and not after a single bit's change."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import RecordError
from csi_driver.domain.keyring import LONGEST_PASSPHRASE
from csi_driver.domain.keyring import KdfKind
from csi_driver.domain.keyring import KdfParameters
from csi_driver.domain.keyring import Purpose
from csi_driver.domain.keyring import WrappedKey
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.wrap import associated_data
from csi_driver.keys.wrap import open_sealed
from csi_driver.keys.wrap import unwrap
from csi_driver.keys.wrap import wrap

_keys = st.binary(min_size=32, max_size=32)
_kdfs = st.builds(
    KdfParameters,
    st.just(KdfKind.HKDF_SHA256),
    st.binary(min_size=16, max_size=16),
)


def _flips(value: bytes) -> list[bytes]:
    """Return every copy of `value` that differs from it in a single bit."""
    number, length = int.from_bytes(value, "big"), len(value)
    return [(number ^ (1 << bit)).to_bytes(length, "big") for bit in range(8 * length)]


@pytest.fixture
def entry(kek: SecretBytes, cheapest: KdfParameters, header: str) -> WrappedKey:
    secret = SecretBytes(b"foreign passphrase")
    return wrap(
        kek,
        secret,
        cheapest,
        purpose=Purpose.PASSPHRASE,
        header_uuid=header,
        layer_format=LuksFormat.LUKS1,
    )


@given(_keys, _keys, _kdfs, st.uuids())
def test_a_dek_comes_back(
    kek: bytes, dek: bytes, kdf: KdfParameters, header: uuid.UUID
) -> None:
    entry = wrap(
        SecretBytes(kek),
        SecretBytes(dek),
        kdf,
        purpose=Purpose.DEK,
        header_uuid=str(header),
    )
    assert unwrap(SecretBytes(kek), entry, kdf).reveal() == dek
    assert dek not in entry.ciphertext


@given(
    st.binary(min_size=1, max_size=LONGEST_PASSPHRASE),
    st.sampled_from(LuksFormat),
    _kdfs,
)
def test_a_passphrase_comes_back(
    secret: bytes, layer_format: LuksFormat, kdf: KdfParameters
) -> None:
    kek = SecretBytes(b"k" * 32)
    entry = wrap(
        kek,
        SecretBytes(secret),
        kdf,
        purpose=Purpose.PASSPHRASE,
        header_uuid=str(uuid.UUID(int=1)),
        layer_format=layer_format,
    )
    assert unwrap(kek, entry, kdf).reveal() == secret


def test_it_is_aes_256_gcm(
    kek: SecretBytes, entry: WrappedKey, cheapest: KdfParameters, header: str
) -> None:
    bound = associated_data(cheapest, Purpose.PASSPHRASE, header, LuksFormat.LUKS1)
    plain = AESGCM(kek.reveal()).decrypt(entry.nonce, entry.ciphertext, bound)
    assert plain == b"foreign passphrase"


def test_the_bound_bytes_are_spelled_in_one_way(header: str) -> None:
    kdf = KdfParameters(KdfKind.ARGON2ID, b"0123456789abcdef", 65536, 3, 2)
    assert associated_data(kdf, Purpose.DEK, header) == b"".join(
        len(part).to_bytes(4, "big") + part
        for part in (
            b"rbdcrypt-csi key ring",
            b"1",
            b"dek",
            b"",
            header.encode(),
            b"argon2id",
            b"0123456789abcdef",
            b"65536",
            b"3",
            b"2",
        )
    )


def test_every_wrap_has_a_new_nonce(
    kek: SecretBytes, cheapest: KdfParameters, header: str
) -> None:
    wraps = [
        wrap(
            kek,
            SecretBytes(bytes(32)),
            cheapest,
            purpose=Purpose.DEK,
            header_uuid=header,
        )
        for _ in range(200)
    ]
    assert len({w.nonce for w in wraps}) == len({w.ciphertext for w in wraps}) == 200


def test_every_flipped_bit_of_the_nonce_is_noticed(
    kek: SecretBytes, entry: WrappedKey, cheapest: KdfParameters
) -> None:
    for nonce in _flips(entry.nonce):
        with pytest.raises(RecordError, match="altered"):
            unwrap(kek, dataclasses.replace(entry, nonce=nonce), cheapest)


def test_every_flipped_bit_of_ciphertext_and_tag_is_noticed(
    kek: SecretBytes, entry: WrappedKey, cheapest: KdfParameters
) -> None:
    for ciphertext in _flips(entry.ciphertext):
        changed = dataclasses.replace(entry, ciphertext=ciphertext)
        with pytest.raises(RecordError, match="altered"):
            unwrap(kek, changed, cheapest)


def test_every_flipped_bit_of_the_bound_bytes_is_noticed(
    kek: SecretBytes, entry: WrappedKey, cheapest: KdfParameters, header: str
) -> None:
    bound = associated_data(cheapest, entry.purpose, header, entry.layer_format)
    opened = open_sealed(kek, entry.nonce, entry.ciphertext, bound, header)
    assert opened.reveal() == b"foreign passphrase"
    for changed in _flips(bound):
        with pytest.raises(RecordError, match="altered"):
            open_sealed(kek, entry.nonce, entry.ciphertext, changed, header)


def test_every_flipped_bit_of_the_kek_is_noticed(
    kek: SecretBytes, entry: WrappedKey, cheapest: KdfParameters
) -> None:
    for other in _flips(kek.reveal()):
        with pytest.raises(RecordError, match="altered"):
            unwrap(SecretBytes(other), entry, cheapest)


def test_every_other_place_is_refused(
    kek: SecretBytes, entry: WrappedKey, cheapest: KdfParameters
) -> None:
    for other in _flips(uuid.UUID(entry.header_uuid).bytes):
        header = str(uuid.UUID(bytes=other))
        with pytest.raises(RecordError, match="altered"):
            unwrap(kek, dataclasses.replace(entry, header_uuid=header), cheapest)
    for layer_format in (LuksFormat.LUKS2, LuksFormat.ANY):
        changed = dataclasses.replace(entry, layer_format=layer_format)
        with pytest.raises(RecordError, match="altered"):
            unwrap(kek, changed, cheapest)


def test_every_other_kdf_is_refused(
    kek: SecretBytes, entry: WrappedKey, cheapest: KdfParameters
) -> None:
    others = [
        KdfParameters(KdfKind.HKDF_SHA256, cheapest.salt),
        dataclasses.replace(cheapest, memory_kib=cheapest.memory_kib + 1),
        dataclasses.replace(cheapest, passes=cheapest.passes + 1),
        dataclasses.replace(cheapest, lanes=cheapest.lanes + 1),
        *[dataclasses.replace(cheapest, salt=salt) for salt in _flips(cheapest.salt)],
    ]
    for other in others:
        with pytest.raises(RecordError, match="altered"):
            unwrap(kek, entry, other)


def test_another_purpose_or_version_is_bound_too(
    kek: SecretBytes, cheapest: KdfParameters, header: str
) -> None:
    entry = wrap(
        kek,
        SecretBytes(bytes(32)),
        cheapest,
        purpose=Purpose.DEK,
        header_uuid=header,
    )
    as_passphrase = dataclasses.replace(
        entry, purpose=Purpose.PASSPHRASE, layer_format=LuksFormat.ANY
    )
    with pytest.raises(RecordError, match="altered"):
        unwrap(kek, as_passphrase, cheapest)
    later = associated_data(cheapest, Purpose.DEK, header, version=2)
    with pytest.raises(RecordError, match="altered"):
        open_sealed(kek, entry.nonce, entry.ciphertext, later, header)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_dek_has_32_bytes(
    kek: SecretBytes, cheapest: KdfParameters, header: str, length: int
) -> None:
    with pytest.raises(RecordError, match="allowed is 32"):
        wrap(
            kek,
            SecretBytes(bytes(length)),
            cheapest,
            purpose=Purpose.DEK,
            header_uuid=header,
        )
