# SPDX-License-Identifier: Apache-2.0
"""The least that any client of librbd does to reach an encrypted volume's data.

A new Rados instance, connect, open, load: nothing is read, locked or checked.
Taken with python-rbd on the driver's own volume, so header and key are the same.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import rados
import rbd

from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.ids import VolumeId
from csi_driver.images.ceph import CephConnector
from csi_driver.images.records import read_record
from csi_driver.images.users import own_user
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import open_ring

if TYPE_CHECKING:
    from collections.abc import Mapping


class Bare:
    """One volume, reached by librbd alone."""

    def __init__(self, volume_id: str, secret: Mapping[str, str]) -> None:
        clusters = parse_clusters(
            Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text()
        )
        self._id = VolumeId.parse(volume_id)
        location = self._id.location
        config = clusters.get(location.cluster)
        user = own_user(config)
        self._name = f"client.{user.user_id}"
        self._conf = {
            "mon_host": ",".join(config.monitors),
            "key": user.key.reveal().decode(),
            "rbd_cache": "false",
            "admin_socket": "",
        }
        with contextlib.closing(CephConnector(clusters).connect("lab")) as ceph:
            pool = ceph.pool_at(location)
            ring = read_record(pool, self._id.image_id).ring
            self._pool = pool.pool_name
        if ring is None:
            raise ValueError(f"volume {volume_id} has no key ring")
        with open_ring(ring, parse_key_source(secret)) as opened:
            (key,) = opened.passphrases().values()
        self._passphrase = key.reveal()

    def open(self) -> float:
        """Connect, open and load; the seconds until the image could be read."""
        begin = time.monotonic()
        with (
            rados.Rados(name=self._name, conf=self._conf) as cluster,
            cluster.open_ioctx(self._pool) as context,
            rbd.Image(context, image_id=self._id.image_id) as image,
        ):
            image.encryption_load2(
                ((rbd.RBD_ENCRYPTION_FORMAT_LUKS2, self._passphrase),)
            )
            return time.monotonic() - begin
