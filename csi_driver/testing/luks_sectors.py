# SPDX-License-Identifier: Apache-2.0
"""aes-xts-plain64 over sectors, by `cryptography`: what dm-crypt and librbd do."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers import modes

from csi_driver.domain.secrets import SecretBytes

_TWEAK_UNIT: Final = 512
"""plain64 counts units of 512 bytes, whatever the sector size (dm-crypt's
`iv_large_sectors` is off in LUKS2)."""


class Sectors:
    """Encrypts and decrypts whole sectors of one data area.

    Offsets are bytes from the start of the data area.
    """

    def __init__(self, key: SecretBytes, sector_size: int) -> None:
        self._algorithm = algorithms.AES(key.reveal())
        self.sector_size: Final = sector_size

    def encrypt(self, offset: int, data: bytes) -> bytes:
        """Return the ciphertext of whole sectors; ValueError if they are not."""
        return self._run(offset, data, encrypt=True)

    def decrypt(self, offset: int, data: bytes) -> bytes:
        """Return the plaintext of whole sectors; ValueError if they are not."""
        return self._run(offset, data, encrypt=False)

    def _run(self, offset: int, data: bytes, *, encrypt: bool) -> bytes:
        size = self.sector_size
        if offset % size or len(data) % size:
            message = f"{len(data)} bytes at {offset} are not whole sectors of {size}"
            raise ValueError(message)
        result = bytearray()
        for at in range(0, len(data), size):
            tweak = ((offset + at) // _TWEAK_UNIT).to_bytes(16, "little")
            cipher = Cipher(self._algorithm, modes.XTS(tweak))
            context = cipher.encryptor() if encrypt else cipher.decryptor()
            result += context.update(data[at : at + size]) + context.finalize()
        return bytes(result)
