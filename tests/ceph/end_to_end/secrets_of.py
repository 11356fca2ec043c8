# SPDX-License-Identifier: Apache-2.0
"""All that opens a volume, computed as an attacker with the Secret would."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import rbd

from csi_driver.domain.record import Record
from csi_driver.keys.derive import derive_kek
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import open_ring
from tests.ceph.end_to_end import traces

MODES = ("passphrase", "key")
_MAGIC = b"LUKS"


def new_secret(mode: str) -> dict[str, str]:
    """Return a Secret that no other volume and no other test has."""
    if mode == "passphrase":
        return {"encryptionPassphrase": f"canary {secrets.token_hex(12)} ünd so"}
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    return {"encryptionKey": key}


def as_source(secret: Mapping[str, str]) -> dict[str, str]:
    """Return what the Secret of a clone says of its source's Secret."""
    return {
        name.replace("encryption", "sourceEncryption"): text
        for name, text in secret.items()
    }


def given(secret: Mapping[str, str]) -> dict[str, bytes]:
    """Return what the Secret itself gives away."""
    (text,) = secret.values()
    found = {"the Secret's text": text.encode()}
    if "encryptionKey" in secret:
        found["the Secret's key"] = base64.b64decode(text)
    return found


def derived(record: Record, secret: Mapping[str, str]) -> dict[str, bytes]:
    """Return the volume's KEK, DEK and both halves of its volume key."""
    assert record.ring is not None
    source = parse_key_source(secret)
    kek = derive_kek(source, record.ring.kdf).reveal()
    with open_ring(record.ring, source) as opened:
        dek = opened.passphrases()[record.layers[0]]
    volume_key = _volume_key(record.image_id, dek.reveal())
    half = len(volume_key) // 2
    return {
        "the KEK": kek,
        "the DEK": dek.reveal(),
        "the volume key's first half": volume_key[:half],
        "the volume key's second half": volume_key[half:],
    }


def all_of(record: Record, secret: Mapping[str, str], whose: str) -> dict[str, bytes]:
    """Return what a Secret gives away and what it opens, under a common name."""
    found = given(secret) | derived(record, secret)
    return {f"{whose}: {name}": value for name, value in found.items()}


def _volume_key(image_id: str, dek: bytes) -> bytes:
    """Ask cryptsetup for the key that encrypts the volume's sectors."""
    with (
        traces.pool_at(os.environ["CEPH_CONF"], "rbd") as pool,
        rbd.Image(pool, image_id=image_id, read_only=True) as image,
        tempfile.TemporaryDirectory() as directory,
    ):
        header, key = Path(directory) / "header", Path(directory) / "key"
        # A clone's header begins with another magic until the clone is flat.
        header.write_bytes(_MAGIC + image.read(0, 16 << 20)[len(_MAGIC) :])
        words = ["cryptsetup", "luksDump", "--batch-mode", "--dump-volume-key"]
        words += ["--key-file=-", f"--volume-key-file={key}", str(header)]
        subprocess.run(words, input=dek, check=True, capture_output=True)
        return key.read_bytes()
