# SPDX-License-Identifier: Apache-2.0
"""From Secret to KEK: against independent computations, and bound to its kind."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
import resource
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.errors import SecretError
from csi_driver.domain.keyring import KdfKind
from csi_driver.domain.keyring import KdfParameters
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.derive import derive_kek
from csi_driver.keys.derive import fingerprint
from csi_driver.keys.derive import new_parameters
from csi_driver.keys.material import Passphrase
from csi_driver.keys.material import RandomKey


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 by hand, one block."""
    extracted = hmac.digest(salt, key, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_a_random_key_goes_through_hkdf(key: bytes, salt: bytes) -> None:
    parameters = KdfParameters(KdfKind.HKDF_SHA256, salt)
    kek = derive_kek(RandomKey(SecretBytes(key)), parameters)
    assert kek.reveal() == _hkdf(key, salt, b"rbdcrypt-csi v1 key-encryption key")


def test_a_passphrase_goes_through_argon2id(cheapest: KdfParameters) -> None:
    kek = derive_kek(Passphrase(SecretBytes(b"correct horse")), cheapest)
    expected = Argon2id(
        salt=cheapest.salt,
        length=32,
        iterations=cheapest.passes,
        lanes=cheapest.lanes,
        memory_cost=cheapest.memory_kib,
    ).derive(b"correct horse")
    assert kek.reveal() == expected


@pytest.mark.parametrize(
    "change",
    [{"salt": b"s" * 16}, {"memory_kib": 20000}, {"passes": 3}, {"lanes": 2}],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_counts(
    cheapest: KdfParameters, change: dict[str, int | bytes]
) -> None:
    source = Passphrase(SecretBytes(b"same"))
    other = dataclasses.replace(cheapest, **change)  # type: ignore[arg-type]
    assert derive_kek(source, cheapest) != derive_kek(source, other)


_AT_ONCE = """
import os, threading
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.derive import derive_kek, new_parameters
from csi_driver.keys.material import Passphrase
ended = []
def work():
    source = Passphrase(SecretBytes(b"x"))
    for _ in range(5):
        ended.append(derive_kek(source, new_parameters(source)))
threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join(60)
print(len(ended), flush=True)
os._exit(0)
"""


def test_many_passphrases_can_be_derived_from_at_once() -> None:
    # In a process of its own: threads that wait in OpenSSL cannot be ended.
    done = subprocess.run(
        [sys.executable, "-c", _AT_ONCE], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "20"


def test_new_parameters_are_salted_anew_and_strong(random_key: RandomKey) -> None:
    passphrase = Passphrase(SecretBytes(b"x"))
    made = [new_parameters(passphrase) for _ in range(50)]
    made += [new_parameters(random_key) for _ in range(50)]
    assert len({parameters.salt for parameters in made}) == 100
    assert (made[0].kind, made[0].memory_kib, made[0].passes) == (
        KdfKind.ARGON2ID,
        65536,
        3,
    )
    assert made[-1].kind is KdfKind.HKDF_SHA256


def test_a_record_cannot_ask_for_a_fast_kdf_of_a_passphrase() -> None:
    parameters = KdfParameters(KdfKind.HKDF_SHA256, bytes(16))
    with pytest.raises(SecretError, match=r"holds a passphrase, but .* a random key"):
        derive_kek(Passphrase(SecretBytes(b"x")), parameters)


def test_a_random_key_does_not_open_a_passphrase_ring(
    cheapest: KdfParameters, random_key: RandomKey
) -> None:
    with pytest.raises(SecretError, match=r"holds a random key, but .* a passphrase"):
        derive_kek(random_key, cheapest)


def test_the_fingerprint_is_derived_from_the_kek_alone() -> None:
    kek = SecretBytes(b"k" * 32)
    block = hmac.digest(
        b"k" * 32, b"rbdcrypt-csi v1 fingerprint\x01", hashlib.sha256
    ).hex()
    assert fingerprint(kek) == "-".join(re.findall("....", block[:16]))


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=2, unique=True))
def test_fingerprints_differ(keks: list[bytes]) -> None:
    found = {fingerprint(SecretBytes(kek)) for kek in keks}
    assert len(found) == len(keks)


_NO_MEMORY = """
import resource
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.derive import derive_kek, new_parameters
from csi_driver.keys.material import Passphrase
source = Passphrase(SecretBytes(b"canary-passphrase"))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 32 * 2**20, used + 32 * 2**20))
try:
    derive_kek(source, new_parameters(source))
except ExhaustedError as error:
    print(error)
"""


def test_a_lack_of_memory_is_said() -> None:
    assert resource.getrlimit(resource.RLIMIT_AS)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", _NO_MEMORY],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "needs 64 MiB" in done.stdout
    assert "canary-passphrase" not in done.stdout + done.stderr
