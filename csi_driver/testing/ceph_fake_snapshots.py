# SPDX-License-Identifier: Apache-2.0
"""The life of snapshots and clones in the fake (clone format 2).

A snapshot that clones still read cannot go: it lingers under another name until
the last of them is flattened or removed.  A clone counts as one as long as its
head or any of its snapshots reads through.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Final

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.images.values import ChildImage
from csi_driver.testing.ceph_fake_images import Parent
from csi_driver.testing.ceph_fake_images import StoredImage
from csi_driver.testing.ceph_fake_images import StoredSnapshot
from csi_driver.testing.ceph_fake_store import FakeStore

_OWN: Final = ".rbd"
"""Opens the metadata keys that a clone does not take over."""


def create_snapshot(image: StoredImage, name: str) -> None:
    """Take a snapshot; AlreadyExistsError if the name is taken."""
    if any(each.name == name and not each.lingering for each in image.snapshots):
        message = f"image {image.name} has a snapshot {name}"
        raise AlreadyExistsError(message)
    image.pool.last_snapshot += 1
    image.snapshots.append(
        StoredSnapshot(
            size=image.size,
            data=image.data.copy(),
            parent=image.parent,
            image=image,
            number=image.pool.last_snapshot,
            name=name,
            created=int(time.time()) * 1_000_000_000,
        ),
    )


def remove_snapshot(store: FakeStore, image: StoredImage, name: str) -> None:
    """Remove a snapshot, or let it linger; NotFoundError without it."""
    snapshot = image.snapshot_named(name)
    snapshot.lingering = True
    snapshot.name = str(uuid.uuid4())
    _collect(store, image)


def let_go(store: FakeStore, parent: Parent | None) -> None:
    """Tell a parent that a clone may no longer read it."""
    if parent is not None:
        _collect(store, parent.snapshot.image)


def children_of(
    store: FakeStore, snapshots: Iterable[StoredSnapshot]
) -> list[StoredImage]:
    """Return the clones of some snapshots, once for each that they read."""
    return [
        image
        for snapshot in snapshots
        for image in store.images()
        if any(
            view.parent is not None and view.parent.snapshot is snapshot
            for view in (image, *image.snapshots)
        )
    ]


def child_image(image: StoredImage) -> ChildImage:
    """Return the port's form of a clone."""
    return ChildImage(
        image.pool.name, image.namespace, image.name, image.image_id, trashed=False
    )


def inherited(metadata: dict[str, str]) -> dict[str, str]:
    """Return what a clone takes over of its source's metadata."""
    return {key: value for key, value in metadata.items() if not key.startswith(_OWN)}


def _collect(store: FakeStore, image: StoredImage) -> None:
    """Let removed snapshots go that no clone reads any more."""
    for snapshot in list(image.snapshots):
        if snapshot.lingering and not children_of(store, (snapshot,)):
            image.snapshots.remove(snapshot)
            let_go(store, snapshot.parent)
