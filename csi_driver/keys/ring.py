# SPDX-License-Identifier: Apache-2.0
"""Make, open and change the key ring of a volume.

An open ring holds the KEK and with it every key of the volume; keep it as
short as the call, and close it.  The ring itself, which holds nothing secret,
goes into the record by the caller's compare-and-set.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from types import TracebackType
from typing import Final
from typing import Self

from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.keyring import DEK_BYTES
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.keyring import Purpose
from csi_driver.domain.keyring import WrappedKey
from csi_driver.domain.secrets import SecretBytes
from csi_driver.keys.derive import derive_kek
from csi_driver.keys.derive import fingerprint
from csi_driver.keys.derive import new_parameters
from csi_driver.keys.material import KeySource
from csi_driver.keys.wrap import unwrap
from csi_driver.keys.wrap import wrap

_NO_RING: Final = "this key ring was closed"


class OpenRing:
    """A key ring with its KEK.  `ring` is what belongs into the record.

    Use it in a `with` statement: the KEK is wiped at the end.
    """

    __slots__ = ("_kek", "_ring")

    def __init__(self, ring: KeyRing, kek: SecretBytes) -> None:
        self._ring = ring
        self._kek = kek

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def ring(self) -> KeyRing:
        """The ring with all changes made so far; holds no secret."""
        return self._ring

    def key_for(self, header_uuid: str) -> SecretBytes:
        """Unwrap what opens this header: a DEK or a foreign passphrase.

        RecordError if the ring has no such entry or the entry was altered.
        """
        entry = self._ring.entry_for(header_uuid)
        if entry is None:
            raise RecordError(
                f"the key ring holds no key for the header {header_uuid}:"
                " the record does not belong to this image, or was altered"
            )
        return self._unwrap(entry)

    def passphrases(self) -> dict[str, SecretBytes]:
        """Unwrap everything, by header UUID, as load specs want it."""
        return {entry.header_uuid: self._unwrap(entry) for entry in self._ring.entries}

    def add_dek(self, header_uuid: str, dek: SecretBytes) -> None:
        """Add the DEK of a further layer.

        RecordError if the header has an entry or the key is not 32 bytes.
        """
        self._add(dek, Purpose.DEK, header_uuid, None)

    def add_passphrase(
        self, header_uuid: str, passphrase: SecretBytes, layer_format: LuksFormat
    ) -> None:
        """Add the passphrase of an ancestor that others formatted.

        RecordError if the header has an entry or the length is out of bounds.
        """
        self._add(passphrase, Purpose.PASSPHRASE, header_uuid, layer_format)

    def add_from(self, other: OpenRing, header_uuids: Collection[str]) -> None:
        """Take over keys of another ring, as a clone does with its ancestors'.

        RecordError if the other lacks one of them or this ring has it already.
        """
        for header_uuid in header_uuids:
            key = other.key_for(header_uuid)
            entry = other.ring.entry_for(header_uuid)
            if entry is not None:
                self._add(key, entry.purpose, header_uuid, entry.layer_format)
            key.wipe()

    def drop(self, header_uuids: Collection[str]) -> None:
        """Forget the keys of headers that nothing names any more."""
        self._ring = self._ring.without(header_uuids)

    def close(self) -> None:
        """Wipe the KEK; nothing can be unwrapped afterwards."""
        self._kek.wipe()

    def _unwrap(self, entry: WrappedKey) -> SecretBytes:
        self._require_open()
        return unwrap(self._kek, entry, self._ring.kdf)

    def _add(
        self,
        secret: SecretBytes,
        purpose: Purpose,
        header_uuid: str,
        layer_format: LuksFormat | None,
    ) -> None:
        self._require_open()
        entry = wrap(
            self._kek,
            secret,
            self._ring.kdf,
            purpose=purpose,
            header_uuid=header_uuid,
            layer_format=layer_format,
        )
        self._ring = self._ring.with_entry(entry)

    def _require_open(self) -> None:
        if not len(self._kek):
            raise ValueError(_NO_RING)


def new_dek() -> SecretBytes:
    """Return 32 random bytes from the kernel."""
    return SecretBytes(os.urandom(DEK_BYTES))


def empty_ring(source: KeySource) -> OpenRing:
    """Derive a KEK with a new salt and return a ring without entries.

    This runs the KDF (0.1 s for a passphrase, outside Python's lock) and may
    run beside the making of the header that the first DEK opens.
    """
    parameters = new_parameters(source)
    kek = derive_kek(source, parameters)
    return OpenRing(KeyRing(parameters, fingerprint(kek)), kek)


def new_ring(source: KeySource, header_uuid: str) -> tuple[KeyRing, SecretBytes]:
    """Return the ring of a new volume and the DEK of its header."""
    dek = new_dek()
    with empty_ring(source) as opened:
        opened.add_dek(header_uuid, dek)
        return opened.ring, dek


def open_ring(ring: KeyRing, source: KeySource) -> OpenRing:
    """Derive the KEK and check it against the ring before anything is unwrapped.

    SecretError names both fingerprints if the Secret is another one.
    """
    kek = derive_kek(source, ring.kdf)
    found = fingerprint(kek)
    if found != ring.fingerprint:
        kek.wipe()
        raise SecretError(
            f"the Secret is not this volume's: its key has the fingerprint {found},"
            f" the volume expects {ring.fingerprint}; give the Secret that the"
            " volume was made with"
        )
    return OpenRing(ring, kek)


def rewrap(opened: OpenRing, source: KeySource) -> KeyRing:
    """Return the same keys under a new Secret, with a new salt and new nonces."""
    with empty_ring(source) as fresh:
        fresh.add_from(opened, [e.header_uuid for e in opened.ring.entries])
        return fresh.ring
