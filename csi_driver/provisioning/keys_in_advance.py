# SPDX-License-Identifier: Apache-2.0
"""The key ring and header of a volume to be, made beside the work on Ceph.

Deriving the KEK and running cryptsetup need nothing from Ceph and together
take longer than the image, so they run while it is being made.
"""

from __future__ import annotations

import concurrent.futures
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol
from typing import Self

from csi_driver.domain.errors import RecordError
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.record import Record
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import Layout
from csi_driver.images.headers import make_header
from csi_driver.keys.inheritance import Inheritance
from csi_driver.keys.inheritance import NoKeys
from csi_driver.keys.material import KeySource
from csi_driver.keys.ring import empty_ring
from csi_driver.keys.ring import new_dek
from csi_driver.keys.ring import open_ring


class VolumeKeys(Protocol):
    """What a new volume's header and record need; wiped by its owner."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Header UUIDs of the volume's chain, its own first."""

    def ring(self) -> KeyRing:
        """Return the ring with the wrapped keys of all layers."""

    def header(self) -> bytes:
        """Return the volume's own header, in the form of a flat image."""

    def passphrases(self) -> Mapping[str, SecretBytes]:
        """Return what opens each header, by its UUID."""


class KeysInAdvance:
    """A fresh DEK, its header and its key ring, under way in two threads.

    A clone's ring takes over `inherited`.  Use it in a `with` statement: all
    keys are wiped at the end.
    """

    def __init__(
        self,
        source: KeySource,
        layout: Layout,
        inherited: Inheritance | None = None,
    ) -> None:
        self._source = source
        self._inherited = inherited or NoKeys()
        self._uuid = uuid.uuid4()
        self._dek = new_dek()
        self._threads = concurrent.futures.ThreadPoolExecutor(2, "keys")
        self._ring = self._threads.submit(self._make_ring)
        self._header = self._threads.submit(make_header, self._dek, self._uuid, layout)

    @property
    def layers(self) -> tuple[str, ...]:
        """Header UUIDs of the volume's chain, its own first."""
        return (str(self._uuid), *self._inherited.layers)

    def passphrases(self) -> Mapping[str, SecretBytes]:
        """Return what opens each header, once the KEK is derived."""
        return self._ring.result()[1]

    def ring(self) -> KeyRing:
        """Return the ring with the wrapped keys, once the KEK is derived."""
        return self._ring.result()[0]

    def header(self) -> bytes:
        """Return the header, once cryptsetup is done."""
        return self._header.result()

    def _make_ring(self) -> tuple[KeyRing, dict[str, SecretBytes]]:
        with empty_ring(self._source) as opened:
            opened.add_dek(str(self._uuid), self._dek)
            self._inherited.give(opened)
            return opened.ring, opened.passphrases()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=True)
        self._dek.wipe()
        if self._ring.exception() is None:
            for each in self._ring.result()[1].values():
                each.wipe()


class KeysOfRecord:
    """The keys of a clone that an interrupted call began, from its own record.

    Its source may be gone by now.  Use it in a `with` statement.
    """

    def __init__(self, record: Record, source: KeySource) -> None:
        """SecretError if the clone was begun under another Secret."""
        if record.ring is None or not record.layers:
            message = f"the record of volume {record.name!r} has no key ring"
            raise RecordError(message)
        self._record = record
        self._kept = record.ring
        with open_ring(record.ring, source) as opened:
            self._passphrases = opened.passphrases()

    @property
    def layers(self) -> tuple[str, ...]:
        """Header UUIDs of the volume's chain, its own first."""
        return self._record.layers

    def ring(self) -> KeyRing:
        """Return the ring as it is."""
        return self._kept

    def header(self) -> bytes:
        """Make the header anew, for the key that the ring has for it."""
        own = self.layers[0]
        return make_header(self._passphrases[own], uuid.UUID(own), self._record.layout)

    def passphrases(self) -> Mapping[str, SecretBytes]:
        """Return what opens each header."""
        return self._passphrases

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self._passphrases.values():
            each.wipe()
