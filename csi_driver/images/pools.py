# SPDX-License-Identifier: Apache-2.0
"""One pool and RADOS namespace over python-rados and python-rbd."""

from __future__ import annotations

import contextlib
import json
import weakref
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import rbd

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import Location
from csi_driver.domain.sizes import Striping
from csi_driver.images import guarded
from csi_driver.images.errors import mapped
from csi_driver.images.handles import FEATURE_BITS
from csi_driver.images.handles import CephImage
from csi_driver.images.loaded import CephLoadedImage
from csi_driver.images.loaded import load
from csi_driver.images.plain import CephPlainImage
from csi_driver.images.raw import CephRawImage
from csi_driver.images.values import NewClone
from csi_driver.images.values import NewImage
from csi_driver.images.values import ParentLink
from csi_driver.images.values import SnapshotPath


class Places(Protocol):
    """The connection that a pool was opened through."""

    def pool(self, name: str, namespace: str = "") -> CephPool:
        """Open a pool by name."""

    def pool_at(self, location: Location) -> CephPool:
        """Open a pool by number."""


class CephPool:
    """One pool and namespace through one Rados instance."""

    def __init__(  # noqa: PLR0917  # made in one place, by its connection
        self,
        instance: Any,
        ioctx: Any,
        location: Location,
        address: str,
        handles: weakref.WeakSet[CephImage],
        connection: Places,
    ) -> None:
        self._instance = instance
        self._opened = ioctx
        self._location = location
        self._address = address
        self._handles = handles
        self._connection = connection
        self._rbd = rbd.RBD()

    @property
    def location(self) -> Location:
        """Where this is, by pool number."""
        return self._location

    @property
    def pool_name(self) -> str:
        """The pool's present name."""
        return str(self.ioctx.name)

    def at(self, location: Location) -> CephPool:
        """Return another place of the cluster, through the same instance."""
        if location.cluster != self._location.cluster:
            message = f"{location} is reached through another cluster's connection"
            raise InternalError(message)
        return self._connection.pool_at(location)

    def namespace_exists(self) -> bool:
        """Tell whether images can be made in this RADOS namespace."""
        name = self._location.namespace
        if not name:
            return True
        with mapped(f"looking for namespace {name!r} of pool {self.pool_name!r}"):
            return bool(self._rbd.namespace_exists(self.ioctx, name))

    def create_image(self, image: NewImage) -> None:
        """Make an image."""
        with mapped(f"creating image {image.name}"):
            self._rbd.create(
                self.ioctx,
                image.name,
                image.size.count,
                image.striping.order,
                old_format=False,
                features=_bits(image.features),
                data_pool=image.data_pool or None,
                **_stripes(image.striping),
            )

    def clone_image(self, source: SnapshotPath, to: NewClone) -> None:
        """Make a clone of a snapshot."""
        pool = self._connection.pool(source.pool_name, source.namespace)
        with mapped(f"cloning {source} to image {to.name}"):
            self._rbd.clone(
                pool.ioctx,
                source.image_name,
                source.snapshot_name,
                self.ioctx,
                to.name,
                order=to.striping.order,
                features=_bits(to.features),
                data_pool=to.data_pool or None,
                clone_format=2,
                **_stripes(to.striping),
            )

    def remove_image(self, name: str) -> None:
        """Remove an image nobody has open."""
        with mapped(f"removing image {name}"):
            self._rbd.remove(self.ioctx, name)

    def find_image(self, name: str) -> str | None:
        """Return the id of the image of that name."""
        with mapped(f"looking for image {name}"):
            try:
                with rbd.Image(self.ioctx, name, read_only=True) as image:
                    return str(image.id())
            except rbd.ImageNotFound:
                return None

    def open_raw(
        self, image_id: str, *, read_only: bool = False, snapshot: int = 0
    ) -> CephRawImage:
        """Open without loading."""
        image = self._open(image_id, read_only=read_only, snapshot=snapshot)
        return self._handed_out(CephRawImage(image, self._address))

    def open_parent(self, link: ParentLink) -> CephRawImage:
        """Open what a clone reads, read-only."""
        pool = self._connection.pool(link.path.pool_name, link.path.namespace)
        with mapped(f"opening {link.path}"):
            image = rbd.Image(pool.ioctx, image_id=link.image_id, read_only=True)
            try:
                image.set_snap_by_id(_number(image, link))
            except BaseException:
                image.close()
                raise
        return self._handed_out(CephRawImage(image, self._address))

    def open_loaded(
        self,
        image_id: str,
        specs: LoadSpecs,
        *,
        read_only: bool = False,
        snapshot: int = 0,
    ) -> CephLoadedImage:
        """Open, and load before anything else is asked of the image."""
        image = self._open(image_id, read_only=read_only, snapshot=snapshot)
        try:
            load(image, specs)
            handle = CephLoadedImage(image, self._address)
            handle.require_encryptable()
        except BaseException:
            image.close()
            raise
        return self._handed_out(handle)

    def open_plain(
        self, image_id: str, *, read_only: bool = False, snapshot: int = 0
    ) -> CephPlainImage:
        """Open a plaintext image."""
        image = self._open(image_id, read_only=read_only, snapshot=snapshot)
        return self._handed_out(CephPlainImage(image, self._address))

    @contextlib.contextmanager
    def listening(
        self, image_id: str, heard: Callable[[bytes], None]
    ) -> Iterator[None]:
        """Hear what librbd's clients tell each other about an image."""

        def notified(_notify: int, _notifier: str, _watch: int, data: bytes) -> None:
            heard(bytes(data or b""))

        doing = f"watching image {image_id}"
        with mapped(doing):
            watch = self.ioctx.watch(guarded.header_object(image_id), notified)
        try:
            yield
        finally:
            with mapped(doing):
                watch.close()

    def read_metadata(self, image_id: str, key: str) -> str | None:
        """Return one metadata value of an image."""
        return guarded.read_metadata(self.ioctx, image_id, key)

    def swap_metadata(self, image_id: str, key: str, old: str | None, new: str) -> None:
        """Set a metadata value by compare-and-set."""
        guarded.swap_metadata(self.ioctx, image_id, key, old, new)

    def read_entries(
        self,
        name: str,
        *,
        prefix: str,
        after: str = "",
        limit: int = 1000,
    ) -> list[tuple[str, str]]:
        """Page through an object's omap."""
        return guarded.read_entries(self.ioctx, name, prefix, after, limit)

    def read_entry(self, name: str, key: str) -> str | None:
        """Return one omap value of an object."""
        return guarded.read_entry(self.ioctx, name, key)

    def swap_entries(
        self,
        name: str,
        *,
        expect: Mapping[str, str | None],
        put: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> None:
        """Change an object's omap by compare-and-set."""
        guarded.swap_entries(self.ioctx, name, expect, put or {}, remove)

    def free_bytes(self) -> int:
        """Return `ceph df`'s figure for the pool, its quota counted in."""
        # Without "detail" Ceph tells no quota.
        command = json.dumps({"prefix": "df", "detail": "detail", "format": "json"})
        with mapped("asking for free space"):
            status, answer, text = self._instance.mon_command(command, b"")
        if status:
            message = f"ceph df failed: {text or status}"
            raise UnavailableError(message)
        for pool in json.loads(answer)["pools"]:
            if pool["id"] == self._location.pool_id:
                return _free(pool["stats"])
        message = f"ceph df does not show pool {self.pool_name}"
        raise NotFoundError(message)

    def is_full(self) -> bool:
        """Return the flag that the monitors give a pool by quota and by disks."""
        # Not "osd dump", which lists every OSD of the cluster.
        command = json.dumps(
            {"prefix": "osd pool ls", "detail": "detail", "format": "json"}
        )
        with mapped("asking whether a pool is full"):
            status, answer, text = self._instance.mon_command(command, b"")
        if status:
            message = f"ceph osd pool ls detail failed: {text or status}"
            raise UnavailableError(message)
        for pool in json.loads(answer):
            if pool["pool_id"] == self._location.pool_id:
                return "full" in str(pool["flags_names"]).split(",")
        message = f"ceph osd pool ls does not show pool {self._location.pool_id}"
        raise NotFoundError(message)

    @property
    def ioctx(self) -> Any:
        """python-rados' context, for pools of the same instance alone."""
        # python-rbd does not look whether it is open, and crashes the process.
        if self._opened.state != "open":
            message = f"pool {self._location} is used after its connection was closed"
            raise InternalError(message)
        return self._opened

    def _open(self, image_id: str, *, read_only: bool, snapshot: int) -> Any:
        with mapped(f"opening image {image_id}"):
            image = rbd.Image(
                self.ioctx, image_id=image_id, read_only=read_only or bool(snapshot)
            )
            if snapshot:
                try:
                    image.set_snap_by_id(snapshot)
                except BaseException:
                    image.close()
                    raise
            return image

    def _handed_out[H: CephImage](self, handle: H) -> H:
        """Remember a handle, which the connection's end closes."""
        self._handles.add(handle)
        return handle


def _number(image: Any, link: ParentLink) -> int:
    """Return the number of a snapshot; one that lingers is not found by name."""
    for each in image.list_snaps():
        if str(each["name"]) == link.path.snapshot_name:
            return int(each["id"])
    message = f"{link.path}, which a clone reads, is gone"
    raise NotFoundError(message)


def _stripes(striping: Striping) -> dict[str, int]:
    """Return librbd's arguments for striping; 0 stands for none."""
    fancy = striping.stripe_count > 1
    return {
        "stripe_unit": striping.stripe_unit if fancy else 0,
        "stripe_count": striping.stripe_count if fancy else 0,
    }


def _bits(features: Sequence[str]) -> int:
    bits = 0
    for name in features:
        if name not in FEATURE_BITS:
            message = f"unknown image feature {name!r}"
            raise InvalidRequestError(message)
        bits |= FEATURE_BITS[name]
    return bits


def _free(stats: Mapping[str, Any]) -> int:
    free = int(stats["max_avail"])
    quota = int(stats.get("quota_bytes", 0))
    if quota:
        free = min(free, max(0, quota - int(stats["stored"])))
    return free
