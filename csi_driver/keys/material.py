# SPDX-License-Identifier: Apache-2.0
"""What a Secret holds: the passphrase or key, and perhaps a Ceph user.

The names are those that Ceph users already have.  A Secret may hold other
things too; they are left alone.  No message here quotes a value.  Reading a
Secret from Kubernetes is left to `kube`, deriving keys from it to `derive`.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Final

from csi_driver.domain.chain import DEEPEST_CHAIN
from csi_driver.domain.clusters import CephUser
from csi_driver.domain.described import Described
from csi_driver.domain.errors import SecretError
from csi_driver.domain.keyring import LONGEST_PASSPHRASE
from csi_driver.domain.secrets import SecretBytes

KEY_BYTES: Final = 32
"""Bytes of `encryptionKey` once its base64 is decoded."""

_KEY_CHARACTERS: Final = 4 * ((KEY_BYTES + 2) // 3)
_LONGEST_USER: Final = 128
_LONGEST_USER_KEY: Final = 256
_USER: Final = re.compile(r"[!-~]+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SHOWN: Final = 60


class SecretPrefix(enum.StrEnum):
    """Which of a Secret's keys are meant."""

    OWN = "encryption"
    """The volume itself: `encryptionPassphrase` or `encryptionKey`."""
    SOURCE = "sourceEncryption"
    """The volume that a clone is made from: `sourceEncryptionPassphrase`, …"""

    @property
    def passphrase_name(self) -> str:
        """Name of the passphrase in the Secret."""
        return f"{self.value}Passphrase"

    @property
    def key_name(self) -> str:
        """Name of the random key in the Secret."""
        return f"{self.value}Key"


_PASSPHRASE: Final = SecretPrefix.OWN.passphrase_name
_KEY: Final = SecretPrefix.OWN.key_name

SECRET_KEYS: Final = (
    Described(
        _PASSPHRASE,
        "a passphrase; a newline at its end is refused, so write it with `printf %s`",
        f"this or `{_KEY}`",
    ),
    Described(
        _KEY,
        f"base64 of exactly {KEY_BYTES} random bytes"
        f" (`head -c {KEY_BYTES} /dev/urandom | base64`)",
        f"this or `{_PASSPHRASE}`",
    ),
    Described(
        f"{_PASSPHRASE}.1, …",
        "adopted images only: the passphrases of parent images, one for each layer"
        f" down to `.{DEEPEST_CHAIN - 1}`; a newline at the end counts for these",
    ),
    Described(
        SecretPrefix.SOURCE.passphrase_name,
        "while a clone is made: what opens its source, where that is another Secret",
    ),
    Described(SecretPrefix.SOURCE.key_name, "the same, where that is a random key"),
    Described(
        "userID",
        "a Ceph user instead of the driver's own, without `client.`; together with"
        " `userKey`",
        "the driver's own",
    ),
    Described("userKey", "its cephx key, as `ceph auth get-key` prints it"),
)
"""Every key of a Secret that means something to the driver."""


@dataclasses.dataclass(frozen=True, slots=True)
class Passphrase:
    """A passphrase that a person or a generator chose, as UTF-8 bytes."""

    value: SecretBytes


@dataclasses.dataclass(frozen=True, slots=True)
class RandomKey:
    """32 random bytes, which need no slow derivation."""

    value: SecretBytes


type KeySource = Passphrase | RandomKey


def parse_key_source(
    secrets: Mapping[str, str],
    prefix: SecretPrefix = SecretPrefix.OWN,
) -> KeySource:
    """Return the passphrase or the key of a Secret.

    SecretError if neither or both are there, or if the one is malformed.
    """
    source = find_key_source(secrets, prefix)
    if source is None and not secrets:
        raise SecretError(
            "no Secret came with the call, or an empty one: name one that holds"
            f" {prefix.passphrase_name} or {prefix.key_name} in the StorageClass"
            " (csi.storage.k8s.io/provisioner-secret-name, node-stage-secret-name"
            " and their namespaces)"
        )
    if source is None:
        raise SecretError(
            f"the Secret holds neither {prefix.passphrase_name} nor"
            f" {prefix.key_name}: set one of them"
        )
    return source


def find_key_source(
    secrets: Mapping[str, str],
    prefix: SecretPrefix = SecretPrefix.OWN,
) -> KeySource | None:
    """Return the passphrase or the key, or None if the Secret has neither.

    SecretError if both are there, or if the one is malformed.
    """
    passphrase = secrets.get(prefix.passphrase_name)
    key = secrets.get(prefix.key_name)
    if passphrase is not None and key is not None:
        raise SecretError(
            f"the Secret holds both {prefix.passphrase_name} and"
            f" {prefix.key_name}: remove the one that is not meant"
        )
    if passphrase is not None:
        value = _passphrase_bytes(passphrase, prefix.passphrase_name)
        _refuse_newline(passphrase, prefix.passphrase_name)
        return Passphrase(value)
    if key is not None:
        return RandomKey(_key_bytes(key, prefix.key_name))
    return None


def parse_layer_passphrases(
    secrets: Mapping[str, str],
    prefix: SecretPrefix = SecretPrefix.OWN,
) -> tuple[SecretBytes, ...]:
    """Return the passphrases of an image that others formatted, own layer first.

    `encryptionPassphrase` is the image's own, `encryptionPassphrase.1` its
    parent's, and so on without a gap.  They go to librbd byte for byte, so a
    newline at the end is kept: `rbd encryption format` counts the one at the
    end of its passphrase file.  SecretError if one is missing or malformed.
    """
    own = prefix.passphrase_name
    if prefix.key_name in secrets:
        raise SecretError(
            f"{prefix.key_name} does not open an image that others"
            f" formatted: put its passphrase into {own} instead"
        )
    layers = {_layer_of(name, own): name for name in secrets if _names(name, own)}
    if 0 not in layers:
        raise SecretError(
            f"the Secret holds no {own}, the passphrase of the image's own layer"
        )
    for number in range(len(layers)):
        if number not in layers:
            raise SecretError(
                f"the Secret holds {own}.{max(layers)} but no {own}.{number}:"
                " every layer from the image down needs its passphrase"
            )
    return tuple(
        _passphrase_bytes(secrets[layers[number]], layers[number])
        for number in range(len(layers))
    )


def newline_hint(passphrases: Sequence[SecretBytes]) -> str:
    """Return a sentence for a refused load if a passphrase ends in a newline.

    It is empty otherwise.  A newline may belong to a foreign passphrase, so
    it is only worth a word once librbd has refused it.
    """
    for number, passphrase in enumerate(passphrases):
        if passphrase.reveal().endswith((b"\n", b"\r")):
            return (
                f"the passphrase of layer {number} ends in a newline, which counts"
                " as part of it; if it was not meant, write the Secret with"
                " `printf %s` or `echo -n`"
            )
    return ""


def parse_ceph_user(secrets: Mapping[str, str]) -> CephUser | None:
    """Return the Ceph user of a Secret, or None if it names none.

    SecretError if one half is missing or malformed.
    """
    user = secrets.get("userID")
    key = secrets.get("userKey")
    if user is None and key is None:
        return None
    if user is None or key is None:
        absent = "userID" if user is None else "userKey"
        raise SecretError(
            f"the Secret names a Ceph user but lacks its {absent}: set userID and"
            " userKey, or neither to use the driver's own Ceph user"
        )
    _refuse_newline(user, "userID")
    _refuse_newline(key, "userKey")
    if user.startswith("client."):
        raise SecretError("userID is written without its `client.` prefix")
    if len(user) > _LONGEST_USER or not _USER.fullmatch(user):
        raise SecretError(
            f"userID is not the name of a Ceph user: 1 to {_LONGEST_USER} printable"
            " ASCII characters without spaces"
        )
    if len(key) > _LONGEST_USER_KEY or not _BASE64.fullmatch(key):
        raise SecretError(
            "userKey is not a cephx key: copy what `ceph auth get-key` prints"
        )
    return CephUser(user, SecretBytes(key.encode("ascii")))


def _passphrase_bytes(text: str, name: str) -> SecretBytes:
    if not text:
        raise SecretError(f"{name} is empty: set a passphrase")
    if "\0" in text:
        raise SecretError(
            f"{name} contains a NUL byte, which not every tool takes: choose a"
            f" passphrase without one, or give random bytes as base64 in"
            f" {SecretPrefix.OWN.key_name}"
        )
    # An encoding error would carry the text along, hence no strict encoding.
    encoded = text.encode("utf-8", "surrogatepass")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise SecretError(f"{name} is not valid UTF-8")
    if len(encoded) > LONGEST_PASSPHRASE:
        raise SecretError(
            f"{name} has {len(encoded)} bytes, more than {LONGEST_PASSPHRASE}"
        )
    return SecretBytes(encoded)


def _refuse_newline(text: str, name: str) -> None:
    if text.endswith(("\n", "\r")):
        raise SecretError(
            f"{name} ends in a newline, which would count as part of it: write the"
            " Secret with `printf %s` or `echo -n`"
        )


def _key_bytes(text: str, name: str) -> SecretBytes:
    _refuse_newline(text, name)
    remedy = f"make one with `head -c {KEY_BYTES} /dev/urandom | base64`"
    if len(text) != _KEY_CHARACTERS or not _BASE64.fullmatch(text):
        raise SecretError(
            f"{name} is not base64 of exactly {KEY_BYTES} bytes"
            f" ({_KEY_CHARACTERS} characters): {remedy}"
        )
    # 44 such characters always decode, though perhaps to 31 or 33 bytes.
    decoded = base64.b64decode(text, validate=True)
    # One key has one spelling: no bits may be left over in the last character.
    if len(decoded) != KEY_BYTES or base64.b64encode(decoded) != text.encode("ascii"):
        raise SecretError(
            f"{name} is not base64 of exactly {KEY_BYTES} bytes: {remedy}"
        )
    return SecretBytes(decoded)


def _names(name: str, own: str) -> bool:
    return name == own or name.startswith(f"{own}.")


def _layer_of(name: str, own: str) -> int:
    number = name.removeprefix(own).removeprefix(".")
    if name == own:
        return 0
    if re.fullmatch(r"[1-9][0-9]?", number) and int(number) < DEEPEST_CHAIN:
        return int(number)
    raise SecretError(
        f"{name[:_SHOWN]!r} names no layer: the parent's passphrase is {own}.1, its"
        f" parent's {own}.2, up to {own}.{DEEPEST_CHAIN - 1}"
    )
