# SPDX-License-Identifier: Apache-2.0
"""The key ring of a volume as it stands in the record: wrapped keys, no secrets.

These are plain values and their JSON form.  Whoever can write image metadata
can write a ring, so every number is bounded here before anything is computed
with it: a hostile ring can neither exhaust memory nor ask for a KDF that is
cheap to guess against.  Deriving, wrapping and unwrapping is left to `keys`.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import re
from collections.abc import Collection
from collections.abc import Mapping
from typing import Final
from typing import Self

from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import RecordError

RING_VERSION: Final = 1

SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
DEK_BYTES: Final = 32

LONGEST_PASSPHRASE: Final = 1024
"""Bytes of a passphrase.  CSI allows 4 KiB for all secrets of a call together."""

MOST_ENTRIES: Final = 128
"""Keys in one ring: the layers of a chain and of what its snapshots still need."""

LEAST_MEMORY_KIB: Final = 19 * 1024
"""OWASP's least memory for argon2id (19 MiB, with 2 passes)."""
MOST_MEMORY_KIB: Final = 100 * 1024
LEAST_PASSES: Final = 2
MOST_PASSES: Final = 10
MOST_LANES: Final = 4

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{4}(?:-[0-9a-f]{4}){3}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_FORMATS: Final = {
    "luks1": LuksFormat.LUKS1,
    "luks2": LuksFormat.LUKS2,
    "luks": LuksFormat.ANY,
}
_FORMAT_NAMES: Final = {value: name for name, value in _FORMATS.items()}
_SHOWN: Final = 40

type Json = Mapping[str, object]


class KdfKind(enum.StrEnum):
    """How the user's Secret becomes the key that wraps the others."""

    ARGON2ID = "argon2id"
    """For passphrases (RFC 9106)."""
    HKDF_SHA256 = "hkdf-sha256"
    """For random keys of 32 bytes (RFC 5869)."""


class Purpose(enum.StrEnum):
    """What a wrapped key is."""

    DEK = "dek"
    """Our own 32 random bytes."""
    PASSPHRASE = "passphrase"  # noqa: S105 - a label, not a secret
    """The passphrase of a layer that somebody else formatted."""


@dataclasses.dataclass(frozen=True, slots=True)
class KdfParameters:
    """KDF and salt of a ring.  The numbers are zero for HKDF.

    `memory_kib` is KiB.  RecordError if a value is outside its bounds.
    """

    kind: KdfKind
    salt: bytes
    memory_kib: int = 0
    passes: int = 0
    lanes: int = 0

    def __post_init__(self) -> None:
        """Refuse costs that would exhaust memory or that protect nothing."""
        if len(self.salt) != SALT_BYTES:
            raise RecordError(
                f"the key ring's salt has {len(self.salt)} bytes, not {SALT_BYTES}"
            )
        if self.kind is KdfKind.HKDF_SHA256:
            _within("memory_kib", self.memory_kib, 0, 0)
            _within("passes", self.passes, 0, 0)
            _within("lanes", self.lanes, 0, 0)
            return
        _within("memory_kib", self.memory_kib, LEAST_MEMORY_KIB, MOST_MEMORY_KIB)
        _within("passes", self.passes, LEAST_PASSES, MOST_PASSES)
        _within("lanes", self.lanes, 1, MOST_LANES)

    def to_json_object(self) -> dict[str, object]:
        """Return the JSON form, ASCII only."""
        common: dict[str, object] = {
            "kind": self.kind.value,
            "salt": _encode(self.salt),
        }
        if self.kind is KdfKind.HKDF_SHA256:
            return common
        return common | {
            "memory_kib": self.memory_kib,
            "passes": self.passes,
            "lanes": self.lanes,
        }

    @classmethod
    def from_json_object(cls, value: object) -> Self:
        """Read the JSON form.  RecordError if anything is unknown or missing."""
        fields = _object(value, "kdf")
        kind = _member(KdfKind, fields.get("kind"), "kdf.kind")
        if kind is KdfKind.HKDF_SHA256:
            _exactly(fields, {"kind", "salt"}, "kdf")
            return cls(kind, _decode(fields["salt"], SALT_BYTES, "kdf.salt"))
        _exactly(fields, {"kind", "salt", "memory_kib", "passes", "lanes"}, "kdf")
        return cls(
            kind,
            _decode(fields["salt"], SALT_BYTES, "kdf.salt"),
            _integer(fields["memory_kib"], "kdf.memory_kib"),
            _integer(fields["passes"], "kdf.passes"),
            _integer(fields["lanes"], "kdf.lanes"),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class WrappedKey:
    """One key of one LUKS header, encrypted with AES-256-GCM.

    `ciphertext` ends with the 16-byte tag.  `layer_format` stands with
    passphrases of foreign layers and only there.  RecordError if the parts do
    not fit together.
    """

    purpose: Purpose
    header_uuid: str
    nonce: bytes
    ciphertext: bytes
    layer_format: LuksFormat | None = None

    def __post_init__(self) -> None:
        """Refuse lengths and combinations that no wrap produces."""
        require_uuid(self.header_uuid)
        if len(self.nonce) != NONCE_BYTES:
            raise RecordError(
                f"a wrapped key's nonce has {len(self.nonce)} bytes, not {NONCE_BYTES}"
            )
        length = len(self.ciphertext) - TAG_BYTES
        if self.purpose is Purpose.DEK:
            least, most = DEK_BYTES, DEK_BYTES
        else:
            least, most = 1, LONGEST_PASSPHRASE
        _within("length of a wrapped key", length, least, most)
        if (self.purpose is Purpose.PASSPHRASE) != (self.layer_format is not None):
            raise RecordError(
                "a wrapped passphrase names its LUKS format, and nothing else does"
            )

    def to_json_object(self) -> dict[str, object]:
        """Return the JSON form, ASCII only."""
        fields: dict[str, object] = {
            "purpose": self.purpose.value,
            "header": self.header_uuid,
            "nonce": _encode(self.nonce),
            "ciphertext": _encode(self.ciphertext),
        }
        if self.layer_format is not None:
            fields["format"] = format_name(self.layer_format)
        return fields

    @classmethod
    def from_json_object(cls, value: object) -> Self:
        """Read the JSON form.  RecordError if anything is unknown or missing."""
        fields = _object(value, "key")
        purpose = _member(Purpose, fields.get("purpose"), "key.purpose")
        names = {"purpose", "header", "nonce", "ciphertext"}
        layer_format = None
        if purpose is Purpose.PASSPHRASE:
            _exactly(fields, names | {"format"}, "key")
            layer_format = _format(fields["format"])
        else:
            _exactly(fields, names, "key")
        longest = LONGEST_PASSPHRASE + TAG_BYTES
        return cls(
            purpose,
            _text(fields["header"], "key.header"),
            _decode(fields["nonce"], NONCE_BYTES, "key.nonce"),
            _decode(fields["ciphertext"], longest, "key.ciphertext"),
            layer_format,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys that a volume's head or snapshots need, wrapped under one KEK.

    `fingerprint` names the KEK, so that a wrong Secret is noticed before any
    data is touched.  At most one entry per header.
    """

    kdf: KdfParameters
    fingerprint: str
    entries: tuple[WrappedKey, ...] = ()
    version: int = RING_VERSION

    def __post_init__(self) -> None:
        """Refuse other versions, duplicates and rings beyond any real use."""
        _known_version(self.version)
        if not _FINGERPRINT.fullmatch(self.fingerprint):
            raise RecordError("the key ring's fingerprint is malformed")
        if len(self.entries) > MOST_ENTRIES:
            raise RecordError(
                f"the key ring has {len(self.entries)} keys, more than {MOST_ENTRIES}"
            )
        headers = {entry.header_uuid for entry in self.entries}
        if len(headers) != len(self.entries):
            raise RecordError("the key ring has two keys for one header")

    def entry_for(self, header_uuid: str) -> WrappedKey | None:
        """Return the entry of a header, or None."""
        for entry in self.entries:
            if entry.header_uuid == header_uuid:
                return entry
        return None

    def with_entry(self, entry: WrappedKey) -> Self:
        """Return a ring with one entry more.  RecordError if its header has one."""
        return dataclasses.replace(self, entries=(*self.entries, entry))

    def without(self, header_uuids: Collection[str]) -> Self:
        """Return a ring that lacks the entries of these headers."""
        kept = tuple(e for e in self.entries if e.header_uuid not in header_uuids)
        return dataclasses.replace(self, entries=kept)

    def to_json_object(self) -> dict[str, object]:
        """Return the JSON form: plain types, ASCII only."""
        return {
            "version": self.version,
            "kdf": self.kdf.to_json_object(),
            "fingerprint": self.fingerprint,
            "keys": [entry.to_json_object() for entry in self.entries],
        }

    @classmethod
    def from_json_object(cls, value: object) -> Self:
        """Read the JSON form.  RecordError if anything is unknown or missing."""
        fields = _object(value, "key ring")
        version = _integer(fields.get("version"), "key ring version")
        _known_version(version)
        _exactly(fields, {"version", "kdf", "fingerprint", "keys"}, "key ring")
        keys = fields["keys"]
        if not isinstance(keys, list) or len(keys) > MOST_ENTRIES:
            raise RecordError(
                f"the key ring's keys are no list of at most {MOST_ENTRIES} entries"
            )
        return cls(
            KdfParameters.from_json_object(fields["kdf"]),
            _text(fields["fingerprint"], "fingerprint"),
            tuple(WrappedKey.from_json_object(key) for key in keys),
            version,
        )


def require_uuid(text: str) -> None:
    """RecordError unless this is the UUID of a LUKS header, in text form."""
    if not _UUID.fullmatch(text):
        raise RecordError(f"{text[:_SHOWN]!r} is not the UUID of a LUKS header")


def format_name(layer_format: LuksFormat) -> str:
    """Return the name under which the ring keeps a LUKS format."""
    return _FORMAT_NAMES[layer_format]


def _known_version(version: int) -> None:
    if version != RING_VERSION:
        raise RecordError(
            f"the key ring has version {version}; this driver knows version"
            f" {RING_VERSION}: use the release that wrote it"
        )


def _format(value: object) -> LuksFormat:
    name = _text(value, "key.format")
    if name not in _FORMATS:
        raise RecordError(f"{name[:_SHOWN]!r} is not a LUKS format of the key ring")
    return _FORMATS[name]


def _within(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        allowed = str(least) if least == most else f"{least} to {most}"
        raise RecordError(f"the key ring's {what} is {value}; allowed is {allowed}")


def _object(value: object, where: str) -> Json:
    if not isinstance(value, dict):
        raise RecordError(f"the {where} of the record is not a JSON object")
    return value


def _exactly(fields: Json, names: set[str], where: str) -> None:
    if fields.keys() == names:
        return
    missing = ", ".join(sorted(names - fields.keys())) or "nothing"
    unknown = ", ".join(sorted(str(n)[:_SHOWN] for n in fields.keys() - names)[:5])
    raise RecordError(
        f"the {where} of the record lacks {missing}"
        f" and has these unknown fields: {unknown or 'none'}"
    )


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"{where} of the record is not a string")
    return value


def _integer(value: object, where: str) -> int:
    # bool is an int to Python but not to JSON.
    if not isinstance(value, int) or isinstance(value, bool):
        raise RecordError(f"{where} of the record is not an integer")
    return value


def _member[E: enum.StrEnum](kind: type[E], value: object, where: str) -> E:
    name = _text(value, where)
    known = {member.value: member for member in kind}
    if name not in known:
        raise RecordError(
            f"{where} of the record is {name[:_SHOWN]!r},"
            f" not one of {', '.join(sorted(known))}"
        )
    return known[name]


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _decode(value: object, longest: int, where: str) -> bytes:
    text = _text(value, where)
    if len(text) > 4 * (longest + 2) // 3 + 2:
        raise RecordError(f"{where} of the record is longer than {longest} bytes")
    if not _BASE64.fullmatch(text):
        raise RecordError(f"{where} of the record is not base64")
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise RecordError(f"{where} of the record is not base64") from None
    if _encode(decoded) != text:
        raise RecordError(f"{where} of the record is not canonical base64")
    return decoded
