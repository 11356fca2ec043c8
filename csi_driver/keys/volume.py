# SPDX-License-Identifier: Apache-2.0
"""From a volume's record and its Secret to the keys of all its layers."""

from __future__ import annotations

from collections.abc import Mapping

from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.record import Record
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.material import KeySource
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import open_ring


def ring_passphrases(
    record: Record, secrets: Mapping[str, str]
) -> dict[str, SecretBytes]:
    """Unlock a volume's key ring; what opens each header, by its UUID.

    The caller wipes them.  SecretError for a Secret that is not the volume's,
    RecordError if the record has no ring or an altered one.
    """
    if record.ring is None:
        message = f"the record of volume {record.name!r} has no key ring"
        raise RecordError(message)
    try:
        return _opened(record.ring, parse_key_source(secrets))
    except SecretError as error:
        message = f"volume {record.name!r}: {error}"
        raise SecretError(message) from error


def _opened(ring: KeyRing, source: KeySource) -> dict[str, SecretBytes]:
    try:
        with open_ring(ring, source) as opened:
            return opened.passphrases()
    finally:
        source.value.wipe()
