# SPDX-License-Identifier: Apache-2.0
"""From a Secret to the key-encryption key (KEK), and the KEK's fingerprint.

A passphrase goes through argon2id (RFC 9106); a random key needs no slow
function and goes through HKDF-SHA256 (RFC 5869).  Both take the volume's own
salt.  Using the KEK is left to `wrap`.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.keyring import SALT_BYTES
from csi_driver.domain.keyring import KdfKind
from csi_driver.domain.keyring import KdfParameters
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.material import KeySource
from csi_driver.keys.material import Passphrase

KEK_BYTES: Final = 32

# RFC 9106, section 4, second recommendation: 64 MiB and 3 passes.  Its 4 lanes
# gain nothing over 2 on two cores; a lane less than the RFC's costs an attacker
# and us the same.
MEMORY_KIB: Final = 64 * 1024
PASSES: Final = 3
LANES: Final = 2

# OpenSSL (3.2 to 4.0.3) gives all derivations of a process as many threads as there
# are processors, and takes a thread back when its derivation ends.  Two at once on
# two processors take one each for their first lane, and wait for the other's.
_ONE_AT_A_TIME: Final = threading.Lock()

_KEK_INFO: Final = b"rbdcrypt-csi v1 key-encryption key"
_FINGERPRINT_INFO: Final = b"rbdcrypt-csi v1 fingerprint"
_FINGERPRINT_BYTES: Final = 8
_GROUP: Final = 4


def new_parameters(source: KeySource) -> KdfParameters:
    """Return the KDF parameters of a new ring, with a random salt."""
    salt = os.urandom(SALT_BYTES)
    if isinstance(source, Passphrase):
        return KdfParameters(KdfKind.ARGON2ID, salt, MEMORY_KIB, PASSES, LANES)
    return KdfParameters(KdfKind.HKDF_SHA256, salt)


def derive_kek(source: KeySource, parameters: KdfParameters) -> SecretBytes:
    """Return the KEK, 32 bytes.

    SecretError if the volume was made with the other kind of Secret: a record
    must not talk us into putting a passphrase through a fast function.
    ExhaustedError if the KDF finds no memory.
    """
    _require_kind(source, parameters.kind)
    kek = bytearray(KEK_BYTES)
    try:
        if isinstance(source, Passphrase):
            _argon2id(source.value, parameters, kek)
        else:
            HKDF(
                algorithm=hashes.SHA256(),
                length=KEK_BYTES,
                salt=parameters.salt,
                info=_KEK_INFO,
            ).derive_into(source.value.reveal(), kek)
        return SecretBytes(kek)
    finally:
        kek[:] = bytes(KEK_BYTES)


def fingerprint(kek: SecretBytes) -> str:
    """Return 64 bits that name a KEK, as `a1b2-c3d4-e5f6-0718`.

    It comes from the KEK and not from the passphrase, so that a guess at the
    passphrase costs a run of the KDF here as everywhere else.
    """
    expand = HKDFExpand(
        algorithm=hashes.SHA256(), length=_FINGERPRINT_BYTES, info=_FINGERPRINT_INFO
    )
    digits = expand.derive(kek.reveal()).hex()
    groups = range(0, len(digits), _GROUP)
    return "-".join(digits[start : start + _GROUP] for start in groups)


def _argon2id(
    passphrase: SecretBytes, parameters: KdfParameters, kek: bytearray
) -> None:
    kdf = Argon2id(
        salt=parameters.salt,
        length=KEK_BYTES,
        iterations=parameters.passes,
        lanes=parameters.lanes,
        memory_cost=parameters.memory_kib,
    )
    try:
        with _ONE_AT_A_TIME:
            kdf.derive_into(passphrase.reveal(), kek)
    except MemoryError:
        raise ExhaustedError(
            f"no memory for the passphrase's KDF, which needs"
            f" {parameters.memory_kib // 1024} MiB: raise the container's memory"
            " limit or let fewer calls run at once"
        ) from None


def _require_kind(source: KeySource, kind: KdfKind) -> None:
    passphrase = isinstance(source, Passphrase)
    if passphrase == (kind is KdfKind.ARGON2ID):
        return
    held, wanted = "a random key", "a passphrase"
    if passphrase:
        held, wanted = wanted, held
    raise SecretError(
        f"the Secret holds {held}, but the volume was made with {wanted}:"
        " give the Secret that it was made with"
    )
