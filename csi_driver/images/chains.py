# SPDX-License-Identifier: Apache-2.0
"""The layers that an image consists of, read from Ceph without loading anything.

librbd tells each image's parent; what each layer is, its first bytes say.  A
clone that was never formatted shows its parent's header there, UUID included,
which is just right: librbd wants the parent's passphrase for it once more.
What passphrase opens a layer is left to others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.luks import header_uuid
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage

FIRST_BYTES: Final = 512
"""Bytes that hold magic, version and UUID of LUKS1 and LUKS2."""

_TRIES: Final = 3


def read_chain(pool: Pool, image_id: str, *, snapshot: int = 0) -> tuple[Layer, ...]:
    """Return all images of a chain, own first, as the head or a snapshot has them.

    It opens every image below, each of which opens its own chain: some 35 opens
    for eight layers.  NotFoundError if one is gone; UnsupportedError if an
    encrypted one has a striping that librbd's encryption cannot stand.
    """

    def read() -> tuple[Layer, ...]:
        with pool.open_raw(image_id, read_only=True, snapshot=snapshot) as image:
            layers = [read_layer(image)]
            link = image.parent()
        while link is not None:
            with pool.open_parent(link) as image:
                layers.append(read_layer(image))
                link = image.parent()
        return tuple(layers)

    return _again(read)


def first_bytes_below(pool: Pool, image_id: str) -> bytes | None:
    """Return the first bytes of what an image reads; None for one that is flat."""

    def read() -> bytes | None:
        with pool.open_raw(image_id, read_only=True) as image:
            link = image.parent()
        if link is None:
            return None
        with pool.open_parent(link) as parent:
            return parent.read_header(FIRST_BYTES)

    return _again(read)


def _again[T](read: Callable[[], T]) -> T:
    """Read once more if a parent is not found.

    A snapshot that is removed while clones read it goes on under another name,
    so a link that was read right before leads nowhere.
    """
    for _ in range(_TRIES - 1):
        with contextlib.suppress(NotFoundError):
            return read()
    return read()


def read_layer(image: RawImage) -> Layer:
    """Return what the image's first bytes say it is."""
    first = image.read_header(FIRST_BYTES)
    kind = header_kind(first)
    if kind is HeaderKind.NONE:
        return Layer(image.image_id, kind)
    image.striping().require_encryptable(image.image_id)
    return Layer(image.image_id, kind, header_uuid(first))
