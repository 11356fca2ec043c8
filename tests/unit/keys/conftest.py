# SPDX-License-Identifier: Apache-2.0
"""Secrets and rings that the key tests share."""

from __future__ import annotations

import uuid

import pytest

from csi_driver.domain.keyring import LEAST_MEMORY_KIB
from csi_driver.domain.keyring import LEAST_PASSES
from csi_driver.domain.keyring import SALT_BYTES
from csi_driver.domain.keyring import KdfKind
from csi_driver.domain.keyring import KdfParameters
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.material import RandomKey


@pytest.fixture(scope="session")
def header() -> str:
    return str(uuid.UUID(int=0x0123456789ABCDEF0123456789ABCDEF))


@pytest.fixture(scope="session")
def random_key() -> RandomKey:
    return RandomKey(SecretBytes(bytes(range(32))))


@pytest.fixture(scope="session")
def cheapest() -> KdfParameters:
    return KdfParameters(
        KdfKind.ARGON2ID, bytes(range(SALT_BYTES)), LEAST_MEMORY_KIB, LEAST_PASSES, 1
    )


@pytest.fixture(scope="session")
def kek() -> SecretBytes:
    return SecretBytes(b"k" * 32)
