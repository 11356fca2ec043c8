# SPDX-License-Identifier: Apache-2.0
"""LUKS2 written from its specification: opens a header, decrypts sectors.

Nothing here uses cryptsetup or librbd, so it is an independent oracle for what
those two write ("LUKS2 On-Disk Format Specification", version 1.1), and it is
what makes the encryption of the fake Ceph genuine.  Only what the driver's
headers need is here: aes-xts-plain64, keyslots under pbkdf2 or argon2id.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import hmac
import json
import struct
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.testing.luks_sectors import Sectors

type Reader = Callable[[int, int], bytes]
"""Returns `length` raw bytes at `offset` of an image, fewer at its end."""

_BINARY: Final = struct.Struct(">6sHQQ48s32s64s40s48sQ")
_BINARY_LENGTH: Final = 4096
_CHECKSUM_AT: Final = 448
_CHECKSUM_LENGTH: Final = 64
_SECONDARY_OFFSETS: Final = tuple(0x4000 << shift for shift in range(9))
_PRIMARY: Final = (b"LUKS\xba\xbe", b"RBDL\xba\xbe")
_SECONDARY: Final = (b"SKUL\xba\xbe", b"LDBR\xba\xbe")
_CIPHER: Final = "aes-xts-plain64"
_KEYSLOT_SECTOR: Final = 512


@dataclasses.dataclass(frozen=True, slots=True)
class OpenVolume:
    """What a header says once a passphrase opened it; sizes in bytes."""

    volume_key: SecretBytes
    data_offset: int
    sector_size: int
    uuid: str

    def sectors(self) -> Sectors:
        """Return the cipher of the data area."""
        return Sectors(self.volume_key, self.sector_size)


@dataclasses.dataclass(frozen=True, slots=True)
class _Metadata:
    sequence: int
    uuid: str
    fields: Mapping[str, Any]


def open_header(header: bytes, passphrase: bytes) -> OpenVolume:
    """Open a header that is at hand as bytes; as `open_volume`."""
    return open_volume(lambda at, length: header[at : at + length], passphrase)


def open_volume(read: Reader, passphrase: bytes) -> OpenVolume:
    """Open a LUKS2 header, of a flat image or of a formatted clone.

    HeaderError if there is none or neither copy of its metadata is whole;
    SecretError if no keyslot opens; UnsupportedError for another cipher.
    """
    metadata = _metadata(read)
    try:
        return _opened(metadata, read, passphrase)
    except (KeyError, TypeError, ValueError) as error:
        message = f"the LUKS2 metadata is incomplete: {error!r}"
        raise HeaderError(message) from error


def _metadata(read: Reader) -> _Metadata:
    """Return the newer of the two metadata copies that are whole."""
    if read(0, 6) not in _PRIMARY:
        message = "there is no LUKS magic"
        raise HeaderError(message)
    copies = [_copy(read, 0, _PRIMARY)]
    copies.extend(_copy(read, at, _SECONDARY) for at in _SECONDARY_OFFSETS)
    whole = [copy for copy in copies if copy is not None]
    if not whole:
        message = "neither copy of the LUKS2 metadata has the right checksum"
        raise HeaderError(message)
    return max(whole, key=lambda copy: copy.sequence)


def _copy(read: Reader, at: int, magics: tuple[bytes, bytes]) -> _Metadata | None:
    """Return one copy of the metadata, None unless it is there and whole."""
    binary = read(at, _BINARY_LENGTH)
    if len(binary) < _BINARY_LENGTH or binary[:6] not in magics:
        return None
    _, version, size, sequence, _, algorithm, _, uuid, _, offset = _BINARY.unpack_from(
        binary,
    )
    known = size in _SECONDARY_OFFSETS
    if version != 2 or not known or offset != at or _text(algorithm) != "sha256":  # noqa: PLR2004
        return None
    area = bytearray(read(at, size))
    found = bytes(area[_CHECKSUM_AT : _CHECKSUM_AT + _CHECKSUM_LENGTH])
    area[_CHECKSUM_AT : _CHECKSUM_AT + _CHECKSUM_LENGTH] = bytes(_CHECKSUM_LENGTH)
    # librbd swaps the magic of a formatted clone and leaves the checksum alone.
    area[:6] = magics[0]
    digest = hashlib.sha256(area).digest()
    if not hmac.compare_digest(digest, found[: len(digest)]):
        return None
    try:
        fields = json.loads(_text(bytes(area[_BINARY_LENGTH:])))
    except ValueError:
        return None
    return _Metadata(sequence, _text(uuid), fields)


def _opened(metadata: _Metadata, read: Reader, passphrase: bytes) -> OpenVolume:
    fields = metadata.fields
    segment = fields["segments"]["0"]
    if segment["type"] != "crypt" or segment["encryption"] != _CIPHER:
        message = f"the cipher is {segment['encryption']}, not {_CIPHER}"
        raise UnsupportedError(message)
    if int(segment["iv_tweak"]):
        message = "the data area begins with another tweak than 0"
        raise UnsupportedError(message)
    for number in sorted(fields["keyslots"], key=int):
        key = _volume_key(fields["keyslots"][number], read, passphrase)
        if _matches(fields["digests"], number, key):
            return OpenVolume(
                volume_key=SecretBytes(key),
                data_offset=int(segment["offset"]),
                sector_size=int(segment["sector_size"]),
                uuid=metadata.uuid,
            )
    message = "the passphrase opens no keyslot"
    raise SecretError(message)


def _volume_key(slot: Mapping[str, Any], read: Reader, passphrase: bytes) -> bytes:
    """Decrypt a keyslot's area and merge its stripes to the volume key."""
    area = slot["area"]
    splitter = slot["af"]
    if area["encryption"] != _CIPHER or splitter["type"] != "luks1":
        message = f"a keyslot under {area['encryption']} is not read here"
        raise UnsupportedError(message)
    key = _derive(slot["kdf"], passphrase, int(area["key_size"]))
    length = int(slot["key_size"]) * int(splitter["stripes"])
    sealed_length = -(-length // _KEYSLOT_SECTOR) * _KEYSLOT_SECTOR
    sealed = read(int(area["offset"]), sealed_length)
    sealed += bytes(sealed_length - len(sealed))
    sectors = Sectors(SecretBytes(key), _KEYSLOT_SECTOR)
    return _merge(
        sectors.decrypt(0, sealed)[:length],
        int(slot["key_size"]),
        int(splitter["stripes"]),
        str(splitter["hash"]),
    )


def _derive(kdf: Mapping[str, Any], passphrase: bytes, length: int) -> bytes:
    salt = base64.b64decode(kdf["salt"], validate=True)
    if kdf["type"] == "pbkdf2":
        return hashlib.pbkdf2_hmac(
            kdf["hash"],
            passphrase,
            salt,
            int(kdf["iterations"]),
            length,
        )
    if kdf["type"] == "argon2id":
        return Argon2id(
            salt=salt,
            length=length,
            iterations=int(kdf["time"]),
            lanes=int(kdf["cpus"]),
            memory_cost=int(kdf["memory"]),
        ).derive(passphrase)
    message = f"the key derivation {kdf['type']} is not read here"
    raise UnsupportedError(message)


@functools.lru_cache(maxsize=64)
def _merge(split: bytes, length: int, stripes: int, hash_name: str) -> bytes:
    """Undo the anti-forensic splitter (LUKS1 On-Disk Format, 2.4).

    Remembered, since it takes 50 ms in Python and tests open one header often.
    """
    state = 0
    for index in range(stripes - 1):
        stripe = int.from_bytes(split[index * length : (index + 1) * length])
        state = int.from_bytes(
            _diffuse((state ^ stripe).to_bytes(length), hash_name),
        )
    last = int.from_bytes(split[(stripes - 1) * length :])
    return (state ^ last).to_bytes(length)


def _diffuse(block: bytes, hash_name: str) -> bytes:
    size = hashlib.new(hash_name).digest_size
    parts = []
    for number, at in enumerate(range(0, len(block), size)):
        part = block[at : at + size]
        digest = hashlib.new(hash_name, struct.pack(">I", number) + part).digest()
        parts.append(digest[: len(part)])
    return b"".join(parts)


def _matches(digests: Mapping[str, Any], slot: str, key: bytes) -> bool:
    """Tell whether the digest of this keyslot confirms the key."""
    for digest in digests.values():
        if slot not in digest["keyslots"] or digest["type"] != "pbkdf2":
            continue
        expected = base64.b64decode(digest["digest"], validate=True)
        found = hashlib.pbkdf2_hmac(
            digest["hash"],
            key,
            base64.b64decode(digest["salt"], validate=True),
            int(digest["iterations"]),
            len(expected),
        )
        if hmac.compare_digest(expected, found):
            return True
    return False


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")
