# SPDX-License-Identifier: Apache-2.0
"""What a LUKS header says in clear: its kind, UUID, and where the data begins.

Offsets are those of the LUKS1 On-Disk Format 1.2.3 (§2.3) and of the LUKS2
On-Disk Format 1.1.4 (§2.1, §3.3).  Nothing here needs a passphrase.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from typing import Final

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import HeaderError

VISIBLE_LENGTH: Final = 4 << 20
"""Bytes from the start of an image that hold any header's metadata: LUKS2
allows JSON areas of up to 4 MiB."""

_UUID: Final = slice(168, 208)
_SECTOR: Final = 512
_LUKS1_PAYLOAD: Final = slice(104, 108)
_LUKS2_BINARY: Final = 4096
_LUKS2_SIZE: Final = slice(8, 16)
_SMALLEST_LUKS1: Final = 592


@dataclasses.dataclass(frozen=True, slots=True)
class LuksHeader:
    """Kind, UUID, and the raw offset of the first data byte."""

    kind: HeaderKind
    uuid: str
    data_offset: int


def parse_header(header: bytes) -> LuksHeader:
    """Read a header's metadata; HeaderError if it is none or damaged."""
    kind = header_kind(header)
    if kind is HeaderKind.NONE:
        message = "the image has no LUKS header"
        raise HeaderError(message)
    uuid = header_uuid(header)
    if kind in {HeaderKind.LUKS1, HeaderKind.CLONE_LUKS1}:
        if len(header) < _SMALLEST_LUKS1:
            raise _damaged("it is cut off")
        sectors = int.from_bytes(header[_LUKS1_PAYLOAD], "big")
        return LuksHeader(kind, uuid, sectors * _SECTOR)
    return LuksHeader(kind, uuid, _luks2_offset(header))


def header_uuid(header: bytes) -> str:
    """Return the UUID, which LUKS1 and LUKS2 keep at the same place."""
    return header[_UUID].split(b"\0", 1)[0].decode("ascii", "replace")


def _luks2_offset(header: bytes) -> int:
    size = int.from_bytes(header[_LUKS2_SIZE], "big")
    if not _LUKS2_BINARY < size <= len(header):
        raise _damaged(f"its metadata claims {size} bytes")
    area = header[_LUKS2_BINARY:size].split(b"\0", 1)[0]
    try:
        segments: dict[str, Any] = json.loads(area)["segments"]
        offsets = [int(each["offset"]) for each in segments.values()]
        return min(offsets)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged("its metadata is not readable") from error


def _damaged(how: str) -> HeaderError:
    return HeaderError(
        f"the image's LUKS header is damaged: {how}; restore it from a backup"
        " (`cryptsetup luksHeaderBackup` makes one)",
    )
