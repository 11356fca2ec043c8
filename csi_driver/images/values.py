# SPDX-License-Identifier: Apache-2.0
"""What the port to Ceph speaks of: images to make, snapshots, links, owners."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence

from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping


@dataclasses.dataclass(frozen=True, slots=True)
class NewImage:
    """What an image is made from; `features` by their names in rbd(8)."""

    name: str
    size: RawSize
    striping: Striping
    features: Sequence[str]
    data_pool: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class NewClone:
    """What a clone is made as; `features` by their names in rbd(8).

    A clone begins with its parent's size; `striping` has to be its parent's.
    """

    name: str
    striping: Striping
    features: Sequence[str]
    data_pool: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ImageSnapshot:
    """A snapshot as librbd lists it.

    `number` is unique in its pool for ever; `size` is the image's at the time;
    `created` is in nanoseconds since 1970.  `lingering` is one that was removed
    while clones still read it: librbd gave it another name.
    """

    number: int
    name: str
    size: RawSize
    created: int
    lingering: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotPath:
    """A snapshot by names, somewhere in the cluster."""

    pool_name: str
    namespace: str
    image_name: str
    snapshot_name: str

    def __str__(self) -> str:
        where = f"{self.pool_name}/{self.namespace}".rstrip("/")
        return f"{where}/{self.image_name}@{self.snapshot_name}"


@dataclasses.dataclass(frozen=True, slots=True)
class ParentLink:
    """The snapshot that a clone reads, and how many raw bytes of it at most."""

    path: SnapshotPath
    image_id: str
    overlap: RawSize


@dataclasses.dataclass(frozen=True, slots=True)
class ChildImage:
    """A clone of some snapshot of an image."""

    pool_name: str
    namespace: str
    image_name: str
    image_id: str
    trashed: bool


type OnProgress = Callable[[int, int], bool]
"""Told (done, total) in objects, in librbd's thread; False cancels the work."""


@dataclasses.dataclass(frozen=True, slots=True)
class LockOwner:
    """Who holds an image's exclusive lock: `owner` is librbd's own token."""

    owner: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class Watcher:
    """A client that has the image open for writing; address as Ceph prints it."""

    address: str
    client: int
    cookie: int


@dataclasses.dataclass(frozen=True, slots=True)
class Dependants:
    """What keeps an image from being removed, children in the trash included."""

    snapshots: int
    children: int

    def __bool__(self) -> bool:
        return bool(self.snapshots or self.children)
