# SPDX-License-Identifier: Apache-2.0
"""The port over python-rados: connections, each one Rados instance."""

from __future__ import annotations

import base64
import binascii
import contextlib
import struct
import threading
import weakref
from collections.abc import Mapping
from typing import Any
from typing import Final

import rados

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import CephKeyError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import Location
from csi_driver.images.errors import mapped
from csi_driver.images.handles import CephImage
from csi_driver.images.pools import CephPool
from csi_driver.images.users import own_user

CONNECT_SECONDS: Final = 8
"""How long a connection may take; csi-provisioner gives a call 10 seconds."""

_KEY_HEAD: Final = struct.Struct("<H8xH")
"""What stands in front of the secret in a cephx key: type, time and length."""
_AES: Final = 1
_AES_LENGTH: Final = 16

_SETTINGS: Final[Mapping[str, str]] = {
    # Connecting is bounded.  Operations are not, whatever `ceph config` says to all
    # clients: librados would report one as failed that is or will be carried out.
    "client_mount_timeout": str(CONNECT_SECONDS),
    "rados_osd_op_timeout": "0",
    # Questions to the monitors are, too: asking again does no harm.
    "rados_mon_op_timeout": str(CONNECT_SECONDS),
    "rbd_cache": "false",
    "rbd_default_clone_format": "2",
    "admin_socket": "",
    "log_to_stderr": "false",
    "log_file": "",
}


class CephConnection:
    """One Rados instance."""

    def __init__(self, cluster: str, instance: Any) -> None:
        self._cluster = cluster
        self._instance = instance
        with mapped("reading this client's address"):
            self._address = str(instance.get_addrs()).rsplit(" ", 1)[-1]
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, Location], tuple[CephPool, Any]] = {}
        self._handles: weakref.WeakSet[CephImage] = weakref.WeakSet()

    @property
    def address(self) -> str:
        """This client's address as lock and watcher lists show it."""
        return self._address

    def pool(self, name: str, namespace: str = "") -> CephPool:
        """Open a pool by name."""
        with mapped(f"opening pool {name!r}"):
            number = self._instance.pool_lookup(name)
        if number is None:
            message = f"cluster {self._cluster!r} has no pool {name!r}"
            raise NotFoundError(message)
        return self._open(name, Location(self._cluster, int(number), namespace))

    def pool_at(self, location: Location) -> CephPool:
        """Open a pool by number."""
        with mapped(f"opening pool number {location.pool_id}"):
            name = self._instance.pool_reverse_lookup(location.pool_id)
        if name is None:
            message = f"cluster {self._cluster!r} has no pool {location.pool_id}"
            raise NotFoundError(message)
        return self._open(str(name), location)

    def close(self) -> None:
        """Disconnect; handles that are still open are closed first."""
        for handle in list(self._handles):
            handle.close()
        with self._lock:
            opened = list(self._pools.values())
        for _, ioctx in opened:
            ioctx.close()
        self._instance.shutdown()

    def _open(self, name: str, location: Location) -> CephPool:
        """Return the pool, opened once: a shared connection lives for months."""
        with self._lock:
            known = self._pools.get((name, location))
            if known is not None:
                return known[0]
            with mapped(f"opening pool {name!r}"):
                ioctx = self._instance.open_ioctx(name)
            ioctx.set_namespace(location.namespace)
            # A full pool is an error then, not a wait until there is room; and
            # what takes no room, such as a change of a record, is carried out,
            # so that volumes can be deleted from it (`rbd rm` does the same).
            ioctx.set_osdmap_full_try()
            pool = CephPool(
                self._instance,
                ioctx,
                location,
                self._address,
                self._handles,
                self,
            )
            self._pools[name, location] = (pool, ioctx)
            return pool


class CephConnector:
    """Makes Rados instances for the configured clusters."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    def connect(self, cluster: str, user: CephUser | None = None) -> CephConnection:
        """Connect within CONNECT_SECONDS, by default as the driver's own user."""
        config = self._clusters.get(cluster)
        return connect(config, user or own_user(config))


def connect(config: ClusterConfig, user: CephUser) -> CephConnection:
    """Connect a new Rados instance; see `Connector.connect` for errors."""
    _require_key(user)
    instance = rados.Rados(
        name=f"client.{user.user_id}",
        conf={
            **_SETTINGS,
            "mon_host": ",".join(config.monitors),
            "key": user.key.reveal().decode("ascii", "replace"),
        },
    )
    with contextlib.ExitStack() as undo:
        undo.callback(instance.shutdown)
        try:
            instance.connect()
        except (rados.PermissionDeniedError, rados.PermissionError) as error:
            message = (
                f"cluster {config.cluster!r} refused the key of client.{user.user_id}:"
                " compare it with `ceph auth get`"
            )
            raise CephKeyError(message) from error
        except rados.Error as error:
            message = (
                f"cluster {config.cluster!r} did not answer within"
                f" {CONNECT_SECONDS} s at {', '.join(config.monitors)}"
            )
            raise UnavailableError(message) from error
        connection = CephConnection(config.cluster, instance)
        undo.pop_all()
    return connection


def _require_key(user: CephUser) -> None:
    """Refuse a malformed key, which librados would quote on stderr.

    It prints "failed to decode key" with the key, whatever the log settings,
    and then fails like a network that does not answer (measured on 18.2.7).
    """
    try:
        decoded = base64.b64decode(user.key.reveal(), validate=True)
    except binascii.Error:
        decoded = b""
    length = len(decoded) - _KEY_HEAD.size
    if length != _AES_LENGTH or _KEY_HEAD.unpack_from(decoded) != (_AES, length):
        message = (
            f"the key of client.{user.user_id} is not a cephx key as"
            " `ceph auth print-key` prints it"
        )
        raise CephKeyError(message)
