# SPDX-License-Identifier: Apache-2.0
"""Images, snapshots and clones made through the port, as the driver makes them.

All of one place share a RADOS namespace, which is emptied at the end.  What
only others' tools can do to them is in `raw_tools`.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from typing import Final

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import specs_for
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import Striping
from csi_driver.images.chains import FIRST_BYTES
from csi_driver.images.chains import read_chain
from csi_driver.images.chains import read_layer
from csi_driver.images.headers import clone_header
from csi_driver.images.headers import make_header
from csi_driver.images.port import LoadedImage
from csi_driver.images.port import Pool
from csi_driver.images.values import NewClone
from csi_driver.images.values import NewImage
from csi_driver.images.values import SnapshotPath

FEATURES: Final = ("layering", "exclusive-lock", "object-map", "fast-diff")
DEEP: Final = (*FEATURES, "deep-flatten")
"""What `rbd clone` gives a clone, unless it is told otherwise."""

SIZE: Final = 12 * MIB + 12 * KIB
"""Effective bytes of most images here; the last object is not whole."""
CUT: Final = Striping()
LAYOUT: Final = Layout.for_striping(CUT)
PIECE: Final = 4 * MIB


class Making:
    """Makes images in one pool and namespace, and knows all their keys."""

    def __init__(self, pool: Pool) -> None:
        self.pool: Final = pool
        self.keys: Final[dict[str, SecretBytes]] = {}
        """By the UUID of the header that each one opens."""

    def plain(
        self, size: int = SIZE, striping: Striping = CUT, reserve: int | None = None
    ) -> str:
        """Make a plaintext image, its reserve at the tail; return its id."""
        name = f"image-{uuid.uuid4()}"
        layout = _layout(striping, reserve)
        raw = layout.raw(EffectiveSize(size))
        self.pool.create_image(NewImage(name, raw, striping, FEATURES))
        return self._id(name)

    def flat(self, size: int = SIZE, striping: Striping = CUT) -> str:
        """Make an encrypted image of so many effective bytes; return its id."""
        image_id = self.plain(size, striping)
        header = self._new_header(Layout.for_striping(striping))
        with self.pool.open_raw(image_id) as raw:
            raw.write_header(header)
        return image_id

    def snapshot(self, image_id: str, name: str = "") -> int:
        """Take a snapshot; return its number."""
        chosen = name or f"snap-{uuid.uuid4()}"
        with self.pool.open_raw(image_id) as raw:
            raw.create_snapshot(chosen)
            return next(each.number for each in raw.snapshots() if each.name == chosen)

    def inherit(
        self,
        source: str,
        snapshot: int,
        features: tuple[str, ...] = FEATURES,
    ) -> str:
        """Make a clone without a header of its own; return its id."""
        with self.pool.open_raw(source, read_only=True) as raw:
            names = {each.number: each.name for each in raw.snapshots()}
            path = SnapshotPath(
                self.pool.pool_name,
                self.pool.location.namespace,
                raw.name,
                names[snapshot],
            )
            striping = raw.striping()
        name = f"clone-{uuid.uuid4()}"
        self.pool.clone_image(path, NewClone(name, striping, features))
        return self._id(name)

    def formatted(
        self,
        source: str,
        snapshot: int,
        *,
        reserve: int | None = None,
        features: tuple[str, ...] = FEATURES,
    ) -> str:
        """Make a clone with a header and a key of its own; return its id."""
        with self.pool.open_raw(source, read_only=True, snapshot=snapshot) as parent:
            covered = parent.read_header(FIRST_BYTES)
            layout = _layout(parent.striping(), reserve)
        image_id = self.inherit(source, snapshot, features)
        header = clone_header(self._new_header(layout))
        with self.pool.open_raw(image_id) as raw:
            raw.write_clone_header(header, covered)
        return image_id

    def learn(self, image_id: str, passphrase: SecretBytes) -> None:
        """Remember what opens an image that others formatted."""
        with self.pool.open_raw(image_id, read_only=True) as raw:
            header = str(read_layer(raw).key)
        self.keys.pop(header, None)
        self.keys[header] = passphrase

    def newest_key(self) -> SecretBytes:
        """Return the key that was made or learnt last."""
        return list(self.keys.values())[-1]

    def specs(self, image_id: str, snapshot: int = 0) -> LoadSpecs:
        """Return what loads an image, or a snapshot of it, as it is now."""
        return specs_for(read_chain(self.pool, image_id, snapshot=snapshot), self.keys)

    def chain_keys(self, image_id: str, snapshot: int = 0) -> list[SecretBytes]:
        """Return the keys of all layers, own first."""
        specs = self.specs(image_id, snapshot)
        return [layer.passphrase for layer in specs.layers]

    def open(
        self, image_id: str, *, read_only: bool = False, snapshot: int = 0
    ) -> LoadedImage:
        """Open and load with the keys of all layers."""
        specs = self.specs(image_id, snapshot)
        return self.pool.open_loaded(
            image_id, specs, read_only=read_only, snapshot=snapshot
        )

    def content(self, image_id: str, snapshot: int = 0) -> bytes:
        """Return every byte that an image, or a snapshot of it, shows loaded."""
        with self.open(image_id, read_only=True, snapshot=snapshot) as image:
            return whole(image)

    def flatten(self, image_id: str) -> None:
        """Flatten as the driver does: loaded, as the owner of the lock."""
        with self.open(image_id) as image:
            image.acquire_lock()
            image.flatten(lambda _done, _total: True)

    def _new_header(self, layout: Layout) -> bytes:
        key, number = SecretBytes(os.urandom(32)), uuid.uuid4()
        self.keys[str(number)] = key
        return make_header(key, number, layout)

    def _id(self, name: str) -> str:
        found = self.pool.find_image(name)
        assert found is not None
        return found


def whole(image: LoadedImage) -> bytes:
    """Return every byte of a loaded image."""
    size = image.size().count
    return b"".join(
        image.read(at, min(PIECE, size - at)) for at in range(0, size, PIECE)
    )


def fill(image: LoadedImage, content: bytes) -> None:
    """Write so many bytes from the start."""
    for at in range(0, len(content), PIECE):
        image.write(at, content[at : at + PIECE])


def noise(seed: int, length: int) -> bytes:
    """Return bytes that say by themselves where they are from."""
    return random.Random(seed).randbytes(length)  # noqa: S311  # test data


def scattered(seed: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Give some writes: across an object's border, inside blocks, at the end."""
    for at, length in (
        (0, 4096),
        (4 * MIB - 700, 9000),
        (9 * MIB + 5, 1000),
        (size - 5000, 5000),
    ):
        yield at, noise(seed + at, length)


def _layout(striping: Striping, reserve: int | None) -> Layout:
    return Layout.for_striping(striping) if reserve is None else Layout(reserve)
