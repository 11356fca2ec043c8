# SPDX-License-Identifier: Apache-2.0
"""LUKS2 headers, made by cryptsetup in memory.

librbd's own format measures the machine and picks an argon2id of some 600 MiB
for every header (13 to 23 s measured on 18.2.7).  Our headers hold 32 random
bytes, which no key derivation makes stronger, so theirs is cheap: a load takes
milliseconds and no memory.  A person's passphrase never goes into one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from typing import Final

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Layout

DEK_LENGTH: Final = 32
"""Bytes of the random passphrase; fewer would need a real key derivation."""

SPARSE_LENGTH: Final = 288 * KIB
"""Bytes of a fresh header that say anything: both metadata copies and the
first keyslot, which is also what librbd reads first.  Behind them cryptsetup
leaves only random filling of keyslots that are not in use."""

_SECTOR: Final = 512
TOOLS_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where cryptsetup is looked for."""

_TIMEOUT: Final = 60.0


SMALLEST_ROOM: Final = 1024 * KIB
"""Bytes from which on a header fits: both metadata copies and three keyslots."""

_METADATA: Final = 16 * KIB
_MOST_KEYSLOTS: Final = 16 * MIB - 2 * _METADATA
"""What cryptsetup takes by default, where there is room for it."""

_FIRST_MAGICS: Final = (b"LUKS\xba\xbe", b"RBDL\xba\xbe")
_SECOND_MAGICS: Final = (b"SKUL\xba\xbe", b"LDBR\xba\xbe")
"""Of the two metadata copies: on a flat image, and on a formatted clone."""


def require_header_room(layout: Layout, image: str) -> None:
    """Refuse an image in front of whose data no header fits (PreconditionError)."""
    if layout.reserve < SMALLEST_ROOM:
        message = (
            f"{image} has {layout.reserve} bytes that it does not export, the header"
            f" of an encrypted clone takes {SMALLEST_ROOM} at least: its end would be"
            " lost to the clone; copy it to a volume of this driver"
        )
        raise PreconditionError(message)


def clone_header(header: bytes) -> bytes:
    """Return a flat image's header as that of a formatted clone.

    The magics alone differ; librbd computes no checksum anew, and so its own
    checksums are those of the flat form (`librbd::crypto::luks`).
    """
    swapped = bytearray(header)
    for at, magics in ((0, _FIRST_MAGICS), (_METADATA, _SECOND_MAGICS)):
        flat, clone = magics
        if swapped[at : at + len(flat)] != flat:
            message = f"the new header has no magic at {at}"
            raise InternalError(message)
        swapped[at : at + len(flat)] = clone
    return bytes(swapped)


def make_header(dek: SecretBytes, header_uuid: uuid.UUID, layout: Layout) -> bytes:
    """Return the first SPARSE_LENGTH bytes of a LUKS2 header for a flat image.

    aes-xts-plain64 with a 512-bit key and 4096-byte sectors; the data begins
    `layout.reserve` bytes behind the header's start, SMALLEST_ROOM at least.
    InternalError with cryptsetup's words if it fails.
    """
    if len(dek) != DEK_LENGTH:
        message = f"a header's key has {DEK_LENGTH} bytes, not {len(dek)}"
        raise InternalError(message)
    with _memory_file(2 * layout.reserve) as file:
        _format(file, dek, header_uuid, layout)
        header = os.pread(file, SPARSE_LENGTH, 0)
    if header_kind(header) is not HeaderKind.LUKS2:
        message = "cryptsetup made something that is not a LUKS2 header"
        raise InternalError(message)
    return header


def _format(
    file: int,
    dek: SecretBytes,
    header_uuid: uuid.UUID,
    layout: Layout,
) -> None:
    keyslots = min(layout.reserve - 2 * _METADATA, _MOST_KEYSLOTS)
    arguments = [
        "cryptsetup",
        "luksFormat",
        "--batch-mode",
        "--type=luks2",
        "--cipher=aes-xts-plain64",
        "--key-size=512",
        f"--sector-size={BLOCK_SIZE}",
        f"--offset={layout.reserve // _SECTOR}",
        f"--luks2-metadata-size={_METADATA}",
        f"--luks2-keyslots-size={keyslots}",
        "--pbkdf=pbkdf2",
        "--hash=sha256",
        "--pbkdf-force-iterations=1000",
        f"--uuid={header_uuid}",
        f"--keyfile-size={DEK_LENGTH}",
        "--key-file=-",
        f"/proc/self/fd/{file}",
    ]
    try:
        result = subprocess.run(
            arguments,
            input=dek.reveal(),
            capture_output=True,
            pass_fds=(file,),
            env={"PATH": TOOLS_PATH, "LC_ALL": "C"},
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        message = f"cryptsetup is not in {TOOLS_PATH}: install cryptsetup-bin"
        raise UnavailableError(message) from error
    except subprocess.TimeoutExpired:  # it would quote the key: not chained
        message = f"cryptsetup made no header within {_TIMEOUT:.0f} s"
        raise UnavailableError(message) from None
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip()
        message = f"cryptsetup luksFormat failed ({result.returncode}): {words}"
        raise InternalError(message)


@contextlib.contextmanager
def _memory_file(size: int) -> Iterator[int]:
    """Yield the descriptor of a sparse file that never reaches a disk."""
    file = os.memfd_create("rbdcrypt-header", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, size)
        yield file
    finally:
        os.close(file)
