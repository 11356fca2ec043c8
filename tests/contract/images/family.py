# SPDX-License-Identifier: Apache-2.0
"""Images and their clones for the contract: who has which header and keys."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Callable

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.headers import clone_header
from csi_driver.images.headers import make_header
from csi_driver.images.port import LoadedImage
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.values import NewClone
from csi_driver.images.values import NewImage
from csi_driver.images.values import SnapshotPath
from tests.contract.images.worlds import FEATURES
from tests.contract.images.worlds import id_of
from tests.contract.images.worlds import make_snapshot
from tests.contract.images.worlds import path_of
from tests.contract.images.worlds import remove_snapshot

SIZE = 64 * MIB
FIRST = 512
"""Bytes that tell whether a clone still shows its parent's header."""


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A passphrase and a header of a flat image that it opens."""

    dek: SecretBytes
    header: bytes
    uuid: str


def make_key(reserve: int = 16 * MIB) -> Key:
    """Make a header with a volume key of its own."""
    dek, header_uuid = SecretBytes(os.urandom(32)), uuid.uuid4()
    return Key(dek, make_header(dek, header_uuid, Layout(reserve)), str(header_uuid))


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One image; `keys` open its chain, own first, down to plaintext."""

    pool: Pool
    name: str
    image_id: str
    keys: tuple[Key, ...]

    @property
    def specs(self) -> LoadSpecs:
        """What a load has to be told."""
        return specs_of(*self.keys)

    def loaded(self, *, read_only: bool = False, snapshot: int = 0) -> LoadedImage:
        """Open and load."""
        return self.pool.open_loaded(
            self.image_id, self.specs, read_only=read_only, snapshot=snapshot
        )

    def raw(self, *, read_only: bool = False, snapshot: int = 0) -> RawImage:
        """Open without loading."""
        return self.pool.open_raw(self.image_id, read_only=read_only, snapshot=snapshot)

    def snapshot(self, name: str) -> int:
        """Take a snapshot and return its number."""
        return make_snapshot(self.pool, self.name, name)

    def drop(self, snapshot: str) -> None:
        """Remove a snapshot."""
        remove_snapshot(self.pool, self.name, snapshot)

    def path(self, snapshot: str) -> SnapshotPath:
        """Return the path of a snapshot."""
        return path_of(self.pool, self.name, snapshot)

    def write(self, offset: int, data: bytes) -> None:
        """Write data, at an effective offset."""
        with self.loaded() as image:
            image.write(offset, data)

    def read(self, offset: int, length: int, *, snapshot: int = 0) -> bytes:
        """Read data, at an effective offset."""
        with self.loaded(read_only=True, snapshot=snapshot) as image:
            return image.read(offset, length)


class Family:
    """Makes images and clones, which the contract removes again."""

    def __init__(self, pool: Pool, new_name: Callable[[], str]) -> None:
        self._pool = pool
        self._new_name = new_name

    def flat(
        self,
        key: Key | None = None,
        *,
        size: int = SIZE,
        striping: Striping | None = None,
        into: Pool | None = None,
        features: tuple[str, ...] = FEATURES,
    ) -> Member:
        """Make an image without parent, plaintext without a key."""
        name, pool = self._new_name(), into or self._pool
        pool.create_image(
            NewImage(name, RawSize(size), striping or Striping(), features)
        )
        made = Member(pool, name, id_of(pool, name), () if key is None else (key,))
        if key is not None:
            with made.raw() as image:
                image.write_header(key.header)
        return made

    def clone(
        self,
        parent: Member,
        key: Key | None = None,
        *,
        snapshot: str = "",
        into: Pool | None = None,
        features: tuple[str, ...] = FEATURES,
    ) -> Member:
        """Clone a member, at a new snapshot unless one is named.

        Without a key the clone is not formatted and shows its parent's header.
        """
        name, pool = self._new_name(), into or self._pool
        taken = snapshot or f"for-{name}"
        if not snapshot:
            parent.snapshot(taken)
        with parent.raw(read_only=True) as image:
            striping = image.striping()
        pool.clone_image(parent.path(taken), NewClone(name, striping, features))
        own = parent.keys[:1] if key is None else (key,)
        made = Member(pool, name, id_of(pool, name), (*own, *parent.keys))
        if key is not None:
            with made.raw() as image:
                covered = image.read_header(FIRST)
                image.write_clone_header(clone_header(key.header), covered)
        return made


def specs_of(*keys: Key) -> LoadSpecs:
    """Return a load's argument."""
    return LoadSpecs(tuple(LayerSpec(key.dek) for key in keys))
