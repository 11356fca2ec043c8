# SPDX-License-Identifier: Apache-2.0
"""A RADOS namespace of its own on the lab's Ceph for each test."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import Final

import rados
import rbd

from csi_driver.domain.clusters import OwnedPool
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.ids import VolumeId
from csi_driver.images.ceph import CephConnector
from tests.unit.provisioning.worlds import World

CLUSTER: Final = "lab"
OTHER_POOL: Final = "rbd2"
_CONFIG: Final = "RBDCRYPT_CLUSTERS_FILE"
_OMAPS: Final = ("rbd_directory", "rbd_trash", "rbd_children", "rbdcrypt.directory")
_LASTING: Final = {*_OMAPS, "rbd_info"}
"""Objects that librbd and the directory never remove again."""


class CephWorld(World):
    """A namespace of a pool of the lab."""

    cluster = CLUSTER

    def __init__(
        self,
        pool: str = "rbd",
        *,
        monitors: tuple[str, ...] = (),
        key_file: str = "",
        wide: bool = False,
    ) -> None:
        """`wide` is with the places of `elsewhere`."""
        self.pool_name = pool
        self.namespace = f"test-{uuid.uuid4().hex[:12]}"
        self._other = f"{self.namespace}-b"
        owned = {pool: [self.namespace]}
        if wide:
            owned = {pool: [self.namespace, self._other], OTHER_POOL: [self._other]}
        self._owned = [(name, each) for name, some in owned.items() for each in some]
        config = parse_clusters(_config_file().read_text()).get(CLUSTER)
        self.config = dataclasses.replace(
            config,
            pools=tuple(
                OwnedPool(name, tuple(namespaces)) for name, namespaces in owned.items()
            ),
            monitors=monitors or config.monitors,
            key_file=key_file or config.key_file,
        )
        self.config_text = json.dumps(
            [
                {
                    "clusterID": CLUSTER,
                    "monitors": self.config.monitors,
                    "rbdcrypt": {
                        "userID": self.config.user_id,
                        "keyFile": self.config.key_file,
                        "pools": [
                            {"name": name, "namespaces": namespaces}
                            for name, namespaces in owned.items()
                        ],
                    },
                },
            ],
        )
        clusters = parse_clusters(self.config_text)
        super().__init__(CephConnector(clusters), clusters)

    @contextlib.contextmanager
    def ioctx(self, pool: str = "", namespace: str | None = None) -> Iterator[Any]:
        """Lend a python-rados context of an administrator."""
        with (
            administrator() as cluster,
            cluster.open_ioctx(pool or self.pool_name) as ioctx,
        ):
            ioctx.set_namespace(self.namespace if namespace is None else namespace)
            yield ioctx

    def begin(self) -> None:
        """Make the namespaces."""
        for pool, namespace in self._owned:
            with self.ioctx(pool, "") as ioctx:
                rbd.RBD().namespace_create(ioctx, namespace)

    def end(self) -> None:
        """Remove the namespaces with all that is in them."""
        self.close()
        for pool, namespace in self._owned:
            with self.ioctx(pool, namespace) as ioctx:
                for each in list(ioctx.list_objects()):
                    with contextlib.suppress(rados.ObjectNotFound):
                        ioctx.remove_object(each.key)
            with self.ioctx(pool, "") as ioctx:
                rbd.RBD().namespace_remove(ioctx, namespace)

    def content(self) -> dict[str, object]:
        """Return all objects with their sizes, and what their omaps hold."""
        found: dict[str, object] = {}
        for pool, namespace in self._owned:
            with self.ioctx(pool, namespace) as ioctx:
                for name in sorted(each.key for each in ioctx.list_objects()):
                    kept, size = _omap(ioctx, name), _size(ioctx, name)
                    # What is listed without being there is a snapshot's, which
                    # the OSD trims in its own time.
                    if size is not None and (name not in _LASTING or kept):
                        found[f"{pool}/{namespace}/{name}"] = size, kept
        return found

    def images(self) -> list[str]:
        """Return the names of all images."""
        with self.ioctx() as ioctx:
            return sorted(rbd.RBD().list(ioctx))

    def rename_snapshot(self, image_id: str, old: str, new: str) -> None:
        """Rename a snapshot."""
        with self.ioctx() as ioctx, rbd.Image(ioctx, image_id=image_id) as image:
            image.rename_snap(old, new)

    def write_raw(self, volume_id: VolumeId, offset: int, data: bytes) -> None:
        """Write to an image."""
        with self.image(volume_id) as image:
            image.write(data, offset)

    def read_raw(self, volume_id: VolumeId, offset: int, length: int) -> bytes:
        """Read from an image."""
        with self.image(volume_id, read_only=True) as image:
            return bytes(image.read(offset, length))

    def elsewhere(self) -> list[dict[str, str]]:
        """Return a namespace and a pool."""
        return [
            {"pool": self.pool_name, "radosNamespace": self._other},
            {"pool": OTHER_POOL, "radosNamespace": self._other},
        ]

    def allocated(self, volume_id: VolumeId) -> int:
        """Return the bytes of its objects."""
        with self.image(volume_id, read_only=True) as image:
            prefix = image.block_name_prefix()
        with self._ioctx_of(volume_id) as ioctx:
            names = [each.key for each in ioctx.list_objects()]
            return sum(ioctx.stat(name)[0] for name in names if name.startswith(prefix))

    @contextlib.contextmanager
    def image(self, volume_id: VolumeId, *, read_only: bool = False) -> Iterator[Any]:
        """Lend an image of an administrator."""
        with (
            self._ioctx_of(volume_id) as ioctx,
            rbd.Image(ioctx, image_id=volume_id.image_id, read_only=read_only) as image,
        ):
            yield image

    @contextlib.contextmanager
    def _ioctx_of(self, volume_id: VolumeId) -> Iterator[Any]:
        with administrator() as cluster:
            name = cluster.pool_reverse_lookup(volume_id.location.pool_id)
            with cluster.open_ioctx(name) as ioctx:
                ioctx.set_namespace(volume_id.location.namespace)
                yield ioctx


@contextlib.contextmanager
def administrator() -> Iterator[Any]:
    """Lend a connection as the lab's administrator."""
    cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
    cluster.connect(timeout=20)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def _omap(ioctx: Any, name: str) -> dict[str, bytes]:
    try:
        with rados.ReadOpCtx() as operation:
            rows, _ = ioctx.get_omap_vals(operation, "", "", 1000)
            ioctx.operate_read_op(operation, name)
            # librbd notes there whether the directory is locked for removal.
            return {key: value for key, value in rows if key != "state"}
    except rados.ObjectNotFound:  # removed between the listing and here
        return {}


def _size(ioctx: Any, name: str) -> int | None:
    try:
        return int(ioctx.stat(name)[0])
    except rados.ObjectNotFound:
        return None


def _config_file() -> Path:
    path = os.environ.get(_CONFIG)
    if not path:
        message = (
            f"{_CONFIG} is not set: start the lab with `hack/lab up` and run this"
            " inside it, with `hack/test ceph`"
        )
        raise AssertionError(message)
    return Path(path)
