# SPDX-License-Identifier: Apache-2.0
"""Secret bytes that do not print themselves.

Passphrases and keys travel through the driver only in this wrapper, so that a
log line, an exception or a debugger's repr shows nothing.  Deriving and
wrapping keys is left to `keys`.
"""

from __future__ import annotations

import hmac
from typing import Final
from typing import NoReturn

_HIDDEN: Final = "<secret>"


class SecretBytes:
    """Bytes that never appear in repr, str, format, pickles or comparisons.

    The content sits in a bytearray, so that `wipe` can overwrite it; copies
    that C libraries or `reveal` made are beyond its reach.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = bytearray(value)

    def reveal(self) -> bytes:
        """Return a copy of the bytes, for the one call that needs them."""
        return bytes(self._value)

    def wipe(self) -> None:
        """Overwrite the content with zeros; the object is empty afterwards."""
        for index in range(len(self._value)):
            self._value[index] = 0
        self._value.clear()

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretBytes):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # mutable, and hashes leak

    def __repr__(self) -> str:
        return _HIDDEN

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return _HIDDEN

    def __reduce__(self) -> NoReturn:
        message = "secret bytes are not pickled"
        raise TypeError(message)
