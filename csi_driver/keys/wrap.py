# SPDX-License-Identifier: Apache-2.0
"""Encrypt one key under another, bound to what it belongs to.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce for every wrap.  The
additional data holds the format version, purpose, LUKS format, header UUID
and KDF parameters, so that no entry can be moved to another header or ring.
Which entries there are is the business of `ring`.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import RecordError
from csi_driver.domain.keyring import NONCE_BYTES
from csi_driver.domain.keyring import RING_VERSION
from csi_driver.domain.keyring import TAG_BYTES
from csi_driver.domain.keyring import KdfParameters
from csi_driver.domain.keyring import Purpose
from csi_driver.domain.keyring import WrappedKey
from csi_driver.domain.keyring import format_name
from csi_driver.domain.keyring import require_uuid
from csi_driver.domain.secrets import SecretBytes

_LABEL: Final = b"rbdcrypt-csi key ring"


def associated_data(
    kdf: KdfParameters,
    purpose: Purpose,
    header_uuid: str,
    layer_format: LuksFormat | None = None,
    version: int = RING_VERSION,
) -> bytes:
    """Return the bytes that bind an entry to its place, in one spelling only.

    Each part is preceded by its length, so that no two contexts read alike.
    """
    parts = (
        _LABEL,
        str(version).encode("ascii"),
        purpose.value.encode("ascii"),
        b"" if layer_format is None else format_name(layer_format).encode("ascii"),
        header_uuid.encode("ascii"),
        kdf.kind.value.encode("ascii"),
        kdf.salt,
        str(kdf.memory_kib).encode("ascii"),
        str(kdf.passes).encode("ascii"),
        str(kdf.lanes).encode("ascii"),
    )
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def wrap(
    kek: SecretBytes,
    secret: SecretBytes,
    kdf: KdfParameters,
    *,
    purpose: Purpose,
    header_uuid: str,
    layer_format: LuksFormat | None = None,
) -> WrappedKey:
    """Encrypt a DEK or passphrase for the header it opens.

    RecordError if the secret's length does not fit its purpose.
    """
    require_uuid(header_uuid)
    nonce = os.urandom(NONCE_BYTES)
    bound = associated_data(kdf, purpose, header_uuid, layer_format)
    ciphertext = AESGCM(kek.reveal()).encrypt(nonce, secret.reveal(), bound)
    return WrappedKey(purpose, header_uuid, nonce, ciphertext, layer_format)


def unwrap(kek: SecretBytes, entry: WrappedKey, kdf: KdfParameters) -> SecretBytes:
    """Decrypt an entry.  RecordError if it or its context was altered."""
    bound = associated_data(kdf, entry.purpose, entry.header_uuid, entry.layer_format)
    return open_sealed(kek, entry.nonce, entry.ciphertext, bound, entry.header_uuid)


def open_sealed(
    kek: SecretBytes, nonce: bytes, ciphertext: bytes, bound: bytes, header_uuid: str
) -> SecretBytes:
    """Decrypt and check; the header's UUID only serves the message."""
    plain = bytearray(len(ciphertext) - TAG_BYTES)
    try:
        AESGCM(kek.reveal()).decrypt_into(nonce, ciphertext, bound, plain)
        return SecretBytes(plain)
    except InvalidTag:
        raise RecordError(
            f"the key of the header {header_uuid} does not unwrap although the"
            " Secret is the right one: the volume's record was altered or damaged"
        ) from None
    finally:
        plain[:] = bytes(len(plain))
