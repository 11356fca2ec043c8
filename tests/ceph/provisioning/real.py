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
from csi_driver.images.ceph import CephConnector
from tests.unit.provisioning.worlds import World

CLUSTER: Final = "lab"
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
    ) -> None:
        self.pool_name = pool
        self.namespace = f"test-{uuid.uuid4().hex[:12]}"
        config = parse_clusters(_config_file().read_text()).get(CLUSTER)
        self.config = dataclasses.replace(
            config,
            pools=(OwnedPool(pool, (self.namespace,)),),
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
                        "pools": [{"name": pool, "namespaces": [self.namespace]}],
                    },
                },
            ],
        )
        clusters = parse_clusters(self.config_text)
        super().__init__(CephConnector(clusters), clusters)

    @contextlib.contextmanager
    def ioctx(self, *, whole_pool: bool = False) -> Iterator[Any]:
        """Lend a python-rados context of an administrator."""
        with (
            administrator() as cluster,
            cluster.open_ioctx(self.pool_name) as ioctx,
        ):
            ioctx.set_namespace("" if whole_pool else self.namespace)
            yield ioctx

    def begin(self) -> None:
        """Make the namespace."""
        with self.ioctx(whole_pool=True) as ioctx:
            rbd.RBD().namespace_create(ioctx, self.namespace)

    def end(self) -> None:
        """Remove the namespace with all that is in it."""
        self.close()
        with self.ioctx() as ioctx:
            for each in list(ioctx.list_objects()):
                with contextlib.suppress(rados.ObjectNotFound):
                    ioctx.remove_object(each.key)
        with self.ioctx(whole_pool=True) as ioctx:
            rbd.RBD().namespace_remove(ioctx, self.namespace)

    def content(self) -> dict[str, object]:
        """Return all objects with their sizes, and what their omaps hold."""
        with self.ioctx() as ioctx:
            names = sorted(each.key for each in ioctx.list_objects())
            found: dict[str, object] = {}
            for name in names:
                kept = _omap(ioctx, name)
                if name not in _LASTING or kept:
                    found[name] = (ioctx.stat(name)[0], kept)
            return found

    def images(self) -> list[str]:
        """Return the names of all images."""
        with self.ioctx() as ioctx:
            return sorted(rbd.RBD().list(ioctx))


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


def _config_file() -> Path:
    path = os.environ.get(_CONFIG)
    if not path:
        message = (
            f"{_CONFIG} is not set: start the lab with `hack/lab up` and run this"
            " inside it, with `hack/test ceph`"
        )
        raise AssertionError(message)
    return Path(path)
