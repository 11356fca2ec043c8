# SPDX-License-Identifier: Apache-2.0
"""What raw and loaded handles of the fake share, with librbd's measured behaviour.

Data is encrypted in earnest: the store holds what RADOS would hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.images.values import LockOwner
from csi_driver.images.values import Watcher
from csi_driver.testing.ceph_fake_images import OpenHandle
from csi_driver.testing.ceph_fake_images import Parent
from csi_driver.testing.ceph_fake_images import StoredImage
from csi_driver.testing.ceph_fake_images import StoredSnapshot
from csi_driver.testing.ceph_fake_store import FakeStore


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """One opening of an image, at a snapshot or not."""

    store: FakeStore
    image: StoredImage
    handle: OpenHandle
    snapshot: StoredSnapshot | None = None

    @property
    def view(self) -> StoredImage | StoredSnapshot:
        """What is read through it."""
        return self.snapshot or self.image


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What a handle knows without asking the cluster."""

    size: int
    parent: Parent | None
    snapshots: tuple[StoredSnapshot, ...]


class FakeImage:
    """What raw and loaded handles share; use one of those two."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._store = opened.store
        self._image = opened.image
        self._handle = opened.handle
        self._closed = False
        self._seen = _looked_at(opened)

    @property
    def image_id(self) -> str:
        """RBD's id of the image."""
        return self._image.image_id

    @property
    def name(self) -> str:
        """The image's name in its pool."""
        with self._doing("reading the name"):
            return self._image.name

    def acquire_lock(self) -> None:
        """Take the EXCLUSIVE lock; InUseError when somebody holds it."""
        with self._asking("taking the exclusive lock") as doing:
            self._image.take_lock(self._handle, exclusive=True, doing=doing)

    def lock_owner(self) -> LockOwner | None:
        """Return who holds the exclusive lock."""
        with self._asking("reading the lock's owner") as doing:
            if self._handle.read_only:
                message = f"{doing}: the handle is read-only"
                raise InvalidRequestError(message)
            lock = self._image.lock
            if lock is None:
                return None
            instance = lock.holder.instance
            return LockOwner(owner=instance.address, address=instance.address)

    def break_lock(self, owner: LockOwner) -> None:
        """Take the lock from an owner, which fences its client."""
        with self._asking("breaking the lock") as doing:
            lock = self._image.lock
            if lock is None:
                message = f"{doing}: nobody holds it"
                raise NotFoundError(message)
            if lock.holder.instance.address != owner.owner:
                message = f"{doing}: {lock.holder.instance.address} holds it"
                raise InUseError(message)
            self._store.fence(lock.holder.instance)

    def foreign_watchers(self) -> list[Watcher]:
        """Return other clients that have the image open for writing."""
        with self._asking("reading the watchers"):
            return [
                Watcher(
                    watch.instance.address,
                    watch.instance.client,
                    watch.cookie,
                )
                for watch in self._image.watchers
                if watch.instance is not self._handle.instance
            ]

    def close(self) -> None:
        """Close the handle; also a fenced one closes without a word."""
        with self._store.lock:
            self._closed = True
            self._image.drop_handle(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[str]:
        """Hold the store for something that librbd answers from memory."""
        doing = f"image {self.image_id}: {what}"
        with self._store.lock:
            if self._closed or self._handle.instance.closed:
                message = f"{doing}: the handle is closed"
                raise InvalidRequestError(message)
            yield doing

    def _known(self) -> Seen:
        """Return what this handle knows: a reader or fenced one is told nothing."""
        if not self._handle.read_only and not self._handle.instance.fenced:
            self._seen = _looked_at(self._opened)
        return self._seen

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[str]:
        """Hold the store for something that has to reach the cluster."""
        with self._doing(what) as doing:
            self._handle.instance.require_alive(doing)
            yield doing

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[str]:
        """Hold store and lock for a write, as librbd's automatic lock does."""
        with self._asking(what) as doing:
            self._image.take_lock(self._handle, exclusive=False, doing=doing)
            if self._image.pool.full:
                message = f"{doing}: the pool is full"
                raise ExhaustedError(message)
            yield doing


def _looked_at(opened: Opened) -> Seen:
    view = opened.view
    return Seen(view.size, view.parent, tuple(opened.image.snapshots))
