# SPDX-License-Identifier: Apache-2.0
"""The two copies of a LUKS2 header's metadata, and which of them is intact.

LUKS2 On-Disk Format 1.1.4, §2: the second copy follows the first, and each has a
checksum over its own binary header and JSON area.  On a formatted clone librbd
changes the two magics alone, so the checksums are those of the flat form.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from csi_driver.domain.luks import VISIBLE_LENGTH

_FIRST: Final = b"LUKS\xba\xbe"
_SECOND: Final = b"SKUL\xba\xbe"
_MAGICS: Final = {
    _FIRST: _FIRST,
    b"RBDL\xba\xbe": _FIRST,
    _SECOND: _SECOND,
    b"LDBR\xba\xbe": _SECOND,
}
"""Each magic, and the one that its checksum was made with."""
_MAGIC: Final = slice(0, 6)
_VERSION: Final = slice(6, 8)
_SIZE: Final = slice(8, 16)
_ALGORITHM: Final = slice(72, 104)
_CHECKSUM: Final = slice(448, 512)
_OFFSET: Final = slice(256, 264)
_SMALLEST: Final = 16 << 10
_SIZES: Final = tuple(_SMALLEST << step for step in range(9))
"""Bytes that one copy may take, and so where the second may begin."""


def intact_copy(header: bytes, at: int) -> bool:
    """Tell whether an unaltered copy of LUKS2 metadata begins at this byte."""
    size = int.from_bytes(header[at : at + 16][_SIZE], "big")
    head = bytearray(header[at : at + min(size, VISIBLE_LENGTH)])
    flat = _MAGICS.get(bytes(head[_MAGIC]))
    wanted = _FIRST if at == 0 else _SECOND
    if size not in _SIZES or len(head) < size or flat != wanted:
        return False
    if head[_VERSION] != b"\0\2" or int.from_bytes(head[_OFFSET], "big") != at:
        return False
    algorithm = bytes(head[_ALGORITHM]).split(b"\0", 1)[0].decode("ascii", "replace")
    if algorithm not in hashlib.algorithms_available:
        return False
    found = bytes(head[_CHECKSUM])
    head[_MAGIC] = flat
    head[_CHECKSUM] = bytes(len(found))
    digest = hashlib.new(algorithm, bytes(head)).digest()
    return hmac.compare_digest(found[: len(digest)], digest)


def second_copy(header: bytes) -> int | None:
    """Return where an intact second copy begins, None if none is found.

    The first copy says where, but need not be readable; there are few places.
    """
    places = (each for each in _SIZES if each < min(len(header), VISIBLE_LENGTH))
    return next((each for each in places if intact_copy(header, each)), None)
