# SPDX-License-Identifier: Apache-2.0
"""Which layers an image consists of, read without loading anything.

Only the header area of each image is looked at.  What passphrase opens a layer
is left to `opening`.
"""

from __future__ import annotations

from typing import Final

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.luks import header_uuid
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage

_BINARY_HEADER: Final = 512
"""Bytes that hold magic, version and UUID of LUKS1 and LUKS2."""


def read_layers(pool: Pool, image_id: str) -> tuple[Layer, ...]:
    """Return the layers of an image, its own first.

    NotFoundError without the image; UnsupportedError for a clone, whose
    ancestors this version does not read, and for an encrypted image whose
    striping librbd's encryption cannot stand.
    """
    with pool.open_raw(image_id, read_only=True) as image:
        first = _first_bytes(image)
        if image.has_parent():
            message = (
                f"image {image_id} is a clone that still reads its parent, which"
                " this version cannot stage: flatten it first"
            )
            raise UnsupportedError(message)
    kind = header_kind(first)
    key = header_uuid(first) if kind.encrypted else None
    return (Layer(image_id, kind, key),)


def read_kind(pool: Pool, image_id: str) -> HeaderKind:
    """Return what the image's first bytes say it is; errors as `read_layers`."""
    with pool.open_raw(image_id, read_only=True) as image:
        return header_kind(_first_bytes(image))


def _first_bytes(image: RawImage) -> bytes:
    first = image.read_header(_BINARY_HEADER)
    if header_kind(first).encrypted:
        image.striping().require_encryptable(image.image_id)
    return first
