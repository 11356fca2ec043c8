# SPDX-License-Identifier: Apache-2.0
"""One Rados instance and one pool of it, made for a single image.

Every image has its own instance: fencing acts on a whole instance, and a key
derivation stalls every image that shares one (measured on 18.2.7).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from collections.abc import Mapping
from ctypes import c_void_p
from dataclasses import dataclass
from dataclasses import field
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.nbd import librbd_api
from csi_driver.nbd import librbd_errors as errors

CONNECT_SECONDS: Final = 10

# Required for what an answered write promises; nobody may set them otherwise.
# No cache, not even a persistent one on this node: an answered write is on the
# OSDs.  No admin socket: its path would clash within one process.  An operation
# that times out on the client may still be done by the OSD, so a timeout, which
# `ceph config` may have set for all clients, loses writes or does them after the
# next one.
REQUIRED: Final[Mapping[str, str]] = {
    "rbd_cache": "false",
    "rbd_plugins": "",
    "rbd_persistent_cache_mode": "disabled",
    "admin_socket": "",
    "rados_osd_op_timeout": "0",
    "rados_mon_op_timeout": "0",
}
# They have their own place, where they are treated as secrets.
SECRET: Final = frozenset({"key", "keyfile", "keyring"})


@dataclass(frozen=True, slots=True)
class CephClient:
    """Who connects, and where.

    `monitors` as in Ceph's mon_host, `user` without "client.", `key` the
    base64 text of a cephx key.  `settings` are further Ceph options; those that
    would weaken the datapath are refused with InvalidRequestError.
    """

    monitors: str
    user: str
    key: SecretBytes
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.settings.items():
            plain = name.replace(" ", "_").replace("-", "_").lower()
            if plain in SECRET or REQUIRED.get(plain, value) != value:
                raise InvalidRequestError(
                    f"the Ceph option {name} may not be set to {value!r} here:"
                    " an answered write has to be on the OSDs"
                    if plain not in SECRET
                    else f"the Ceph option {name} has its own field"
                )


class Connection:
    """A connected Rados instance, in which one pool and namespace is opened.

    Raises CephKeyError for a wrong or malformed key, UnavailableError when no
    monitor answers within ten seconds.
    """

    def __init__(self, client: CephClient) -> None:
        self._library = librbd_api.library()
        self._cluster = c_void_p()
        self.ioctx = c_void_p()
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._connect(client)
            undo.pop_all()

    def _connect(self, client: CephClient) -> None:
        library = self._library
        subject = f"Ceph user client.{client.user}"
        name = f"client.{client.user}".encode()
        errors.check(
            library["rados_create2"](ctypes.byref(self._cluster), b"ceph", name, 0),
            errors.SETUP,
            subject,
            "create a client",
        )
        settings = {
            "client_mount_timeout": str(CONNECT_SECONDS),
            **client.settings,
            **REQUIRED,
            "mon_host": client.monitors,
        }
        for option, value in settings.items():
            errors.check(
                library["rados_conf_set"](
                    self._cluster, option.encode(), value.encode()
                ),
                errors.SETUP,
                subject,
                f"set the option {option}",
            )
        with _revealed(client.key) as key:
            result = library["rados_conf_set"](self._cluster, b"key", key)
        errors.check(result, errors.SETUP, subject, "use its key")
        result = library["rados_connect"](self._cluster)
        errors.check(result, errors.CONNECT, subject, "connect")

    def open_pool(self, pool: str, namespace: str) -> None:
        """Open the pool whose context `ioctx` is then; NotFoundError without it."""
        result = self._library["rados_ioctx_create"](
            self._cluster, pool.encode(), ctypes.byref(self.ioctx)
        )
        errors.check(result, errors.POOL, f"pool {pool}", "open it")
        if namespace:
            self._library["rados_ioctx_set_namespace"](self.ioctx, namespace.encode())

    @property
    def cluster(self) -> c_void_p:
        """The rados_t, for a watch of this client."""
        return self._cluster

    def addresses(self) -> str:
        """Return this client's address as locks, watchers and blocklists show it."""
        text = c_void_p()
        result = self._library["rados_getaddrs"](self._cluster, ctypes.byref(text))
        errors.check(result, errors.GENERAL, "Ceph client", "tell its address")
        try:
            return librbd_api.string_at(text.value)
        finally:
            self._library["rados_buffer_free"](text)

    def close(self) -> None:
        """Disconnect; harmless when repeated."""
        if self.ioctx.value:
            self._library["rados_ioctx_destroy"](self.ioctx)
            self.ioctx = c_void_p()
        if self._cluster.value:
            self._library["rados_shutdown"](self._cluster)
            self._cluster = c_void_p()


@contextlib.contextmanager
def _revealed(secret: SecretBytes) -> Iterator[c_void_p]:
    """Lend a NUL-terminated copy of a secret; zeroed afterwards."""
    copy = librbd_api.Secret(secret.reveal() + b"\0")
    try:
        yield c_void_p(copy.address)
    finally:
        copy.wipe()
