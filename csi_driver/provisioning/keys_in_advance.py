# SPDX-License-Identifier: Apache-2.0
"""The key ring and header of a volume to be, made beside the work on Ceph.

Deriving the KEK and running cryptsetup need nothing from Ceph and together
take longer than the image, so they run while it is being made.
"""

from __future__ import annotations

import concurrent.futures
import uuid
from types import TracebackType
from typing import Self

from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import Layout
from csi_driver.images.headers import make_header
from csi_driver.keys.material import KeySource
from csi_driver.keys.ring import empty_ring
from csi_driver.keys.ring import new_dek


class KeysInAdvance:
    """A fresh DEK, its header and its key ring, under way in two threads.

    Use it in a `with` statement: the DEK is wiped at the end.
    """

    def __init__(self, source: KeySource, layout: Layout) -> None:
        self._source = source
        self._uuid = uuid.uuid4()
        self._dek = new_dek()
        self._threads = concurrent.futures.ThreadPoolExecutor(2, "keys")
        self._ring = self._threads.submit(self._make_ring)
        self._header = self._threads.submit(make_header, self._dek, self._uuid, layout)

    @property
    def header_uuid(self) -> str:
        """The UUID in the header, under which the ring files the DEK."""
        return str(self._uuid)

    @property
    def dek(self) -> SecretBytes:
        """What opens the header."""
        return self._dek

    def ring(self) -> KeyRing:
        """Return the ring with the wrapped DEK, once the KEK is derived."""
        return self._ring.result()

    def header(self) -> bytes:
        """Return the header, once cryptsetup is done."""
        return self._header.result()

    def _make_ring(self) -> KeyRing:
        with empty_ring(self._source) as opened:
            opened.add_dek(self.header_uuid, self._dek)
            return opened.ring

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
