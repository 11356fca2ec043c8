# SPDX-License-Identifier: Apache-2.0
"""librados and librbd through ctypes: every prototype, struct and address.

One wrong address kills the process, so all of them are here, and nothing else
is: types and prototypes as in rados/librados.h and rbd/librbd.h of Ceph Reef.
The libraries are loaded on first use.

Calls that may block go through `CDLL`, which releases the interpreter's lock;
the short ones of the hot path through `PyDLL`, which keeps it and is faster
(measured: 37 against 44 µs for one read).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER
from ctypes import c_char_p
from ctypes import c_int
from ctypes import c_size_t
from ctypes import c_ssize_t
from ctypes import c_uint64
from ctypes import c_void_p
from functools import cache
from typing import Any
from typing import Final

from csi_driver.domain.errors import PreconditionError

EVENT_TYPE_EVENTFD: Final = 2  # 1 is a pipe, which hangs silently
LOCK_MODE_EXCLUSIVE: Final = 0
POLL_BATCH: Final = 256

PROGRESS: Final = ctypes.CFUNCTYPE(c_int, c_uint64, c_uint64, c_void_p)
FEATURE_DEEP_FLATTEN: Final = 1 << 5

ON_NOTIFY: Final = ctypes.CFUNCTYPE(
    None, c_void_p, c_uint64, c_uint64, c_uint64, c_void_p, c_size_t
)
"""rados_watchcb2_t: argument, notify id, cookie, notifier, data and its length."""

ON_WATCH_ERROR: Final = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, c_int)
"""rados_watcherrcb_t: argument, cookie, error."""


class LuksOptions(ctypes.Structure):
    """rbd_encryption_luks_format_options_t: LUKS of either version."""

    _fields_ = (("passphrase", c_void_p), ("passphrase_size", c_size_t))


class VersionedLuksOptions(ctypes.Structure):
    """rbd_encryption_luks1_format_options_t, and luks2 with the same fields."""

    _fields_ = (
        ("algorithm", c_int),
        ("passphrase", c_void_p),
        ("passphrase_size", c_size_t),
    )


class EncryptionSpec(ctypes.Structure):
    """rbd_encryption_spec_t."""

    _fields_ = (("format", c_int), ("options", c_void_p), ("options_size", c_size_t))


class ConfigOption(ctypes.Structure):
    """rbd_config_option_t; source is 0 for client, 1 for pool, 2 for image."""

    _fields_ = (("name", c_char_p), ("value", c_char_p), ("source", c_int))


class LinkedImageSpec(ctypes.Structure):
    """rbd_linked_image_spec_t."""

    _fields_ = (
        ("pool_id", ctypes.c_int64),
        ("pool_name", c_void_p),
        ("pool_namespace", c_void_p),
        ("image_id", c_void_p),
        ("image_name", c_void_p),
        ("trash", ctypes.c_bool),
    )


class SnapshotSpec(ctypes.Structure):
    """rbd_snap_spec_t."""

    _fields_ = (("id", c_uint64), ("namespace_type", c_int), ("name", c_void_p))


CONFIG_SOURCES: Final = ("client", "pool", "image")

_RADOS: Final[dict[str, tuple[Any, ...]]] = {
    "rados_create2": (POINTER(c_void_p), c_char_p, c_char_p, c_uint64),
    "rados_conf_set": (c_void_p, c_char_p, c_void_p),
    "rados_connect": (c_void_p,),
    "rados_ioctx_create": (c_void_p, c_char_p, POINTER(c_void_p)),
    "rados_getaddrs": (c_void_p, POINTER(c_void_p)),
    "rados_watch3": (
        c_void_p,
        c_char_p,
        POINTER(c_uint64),
        ON_NOTIFY,
        ON_WATCH_ERROR,
        ctypes.c_uint32,
        c_void_p,
    ),
    "rados_unwatch2": (c_void_p, c_uint64),
    "rados_notify_ack": (c_void_p, c_char_p, c_uint64, c_uint64, c_char_p, c_int),
    "rados_watch_flush": (c_void_p,),
}
_RADOS_VOID: Final[dict[str, tuple[Any, ...]]] = {
    "rados_shutdown": (c_void_p,),
    "rados_ioctx_destroy": (c_void_p,),
    "rados_ioctx_set_namespace": (c_void_p, c_char_p),
    "rados_buffer_free": (c_void_p,),
}
_RBD: Final[dict[str, tuple[Any, ...]]] = {
    "rbd_open": (c_void_p, c_char_p, POINTER(c_void_p), c_char_p),
    "rbd_open_read_only": (c_void_p, c_char_p, POINTER(c_void_p), c_char_p),
    "rbd_open_by_id": (c_void_p, c_char_p, POINTER(c_void_p), c_char_p),
    "rbd_open_by_id_read_only": (c_void_p, c_char_p, POINTER(c_void_p), c_char_p),
    "rbd_close": (c_void_p,),
    "rbd_encryption_load2": (c_void_p, POINTER(EncryptionSpec), c_size_t),
    "rbd_get_size": (c_void_p, POINTER(c_uint64)),
    "rbd_resize2": (c_void_p, c_uint64, ctypes.c_bool, PROGRESS, c_void_p),
    "rbd_flatten_with_progress": (c_void_p, PROGRESS, c_void_p),
    "rbd_get_parent": (c_void_p, POINTER(LinkedImageSpec), POINTER(SnapshotSpec)),
    "rbd_get_features": (c_void_p, POINTER(c_uint64)),
    "rbd_snap_list": (c_void_p, c_void_p, POINTER(c_int)),
    "rbd_lock_acquire": (c_void_p, c_int),
    "rbd_lock_get_owners": (
        c_void_p,
        POINTER(c_int),
        POINTER(c_void_p),
        POINTER(c_size_t),
    ),
    "rbd_is_exclusive_lock_owner": (c_void_p, POINTER(c_int)),
    "rbd_config_image_list": (c_void_p, POINTER(ConfigOption), POINTER(c_int)),
    "rbd_set_image_notification": (c_void_p, c_int, c_int),
    "rbd_flush": (c_void_p,),
    "rbd_aio_read": (c_void_p, c_uint64, c_size_t, c_void_p, c_void_p),
    "rbd_aio_write": (c_void_p, c_uint64, c_size_t, c_void_p, c_void_p),
    "rbd_aio_flush": (c_void_p, c_void_p),
}
_RBD_VOID: Final[dict[str, tuple[Any, ...]]] = {
    "rbd_lock_get_owners_cleanup": (POINTER(c_void_p), c_size_t),
    "rbd_config_image_list_cleanup": (POINTER(ConfigOption), c_int),
    "rbd_linked_image_spec_cleanup": (POINTER(LinkedImageSpec),),
    "rbd_snap_spec_cleanup": (POINTER(SnapshotSpec),),
}


class Library:
    """The functions of both libraries, by their names, with prototypes.

    Each returns 0 or more on success and a negative errno else, unless its
    type is void.
    """

    def __init__(self) -> None:
        rados = _load(ctypes.CDLL, "librados.so.2")
        rbd = _load(ctypes.CDLL, "librbd.so.1")
        short = _load(ctypes.PyDLL, "librbd.so.1")
        self._functions: dict[str, Callable[..., Any]] = {}
        for library, table, restype in (
            (rados, _RADOS, c_int),
            (rados, _RADOS_VOID, None),
            (rbd, _RBD, c_int),
            (rbd, _RBD_VOID, None),
        ):
            for name, argtypes in table.items():
                self._functions[name] = _prototype(library, name, argtypes, restype)
        handle = (c_void_p,)
        self.aio_create_completion = _prototype(
            short, "rbd_aio_create_completion", (c_void_p,) * 3, c_int
        )
        self.aio_get_return_value = _prototype(
            short, "rbd_aio_get_return_value", handle, c_ssize_t
        )
        self.aio_release = _prototype(short, "rbd_aio_release", handle, None)
        self.poll_io_events = _prototype(
            short, "rbd_poll_io_events", (c_void_p, c_void_p, c_int), c_int
        )
        self.aio_read = self["rbd_aio_read"]
        self.aio_write = self["rbd_aio_write"]
        self.aio_flush = self["rbd_aio_flush"]

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._functions[name]


@cache
def library() -> Library:
    """Load both libraries once; PreconditionError when one is missing or too old."""
    return Library()


def _load[Kind: ctypes.CDLL](kind: type[Kind], name: str) -> Kind:
    try:
        return kind(name)
    except OSError as error:
        raise PreconditionError(
            f"{name} cannot be loaded; install Ceph's librbd1 and librados2 (Reef"
            f" or later): {error}"
        ) from error


def _prototype(
    library: ctypes.CDLL, name: str, argtypes: tuple[Any, ...], restype: Any
) -> Callable[..., Any]:
    try:
        function = library[name]
    except AttributeError as error:
        raise PreconditionError(
            f"librbd or librados has no {name}; Ceph Reef (18.2) or later is needed"
        ) from error
    function.argtypes = argtypes
    function.restype = restype
    return function


class Secret:
    """A copy of secret bytes at a fixed address, zeroed by `wipe`."""

    __slots__ = ("_buffer", "length")

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._buffer = ctypes.create_string_buffer(content, self.length or 1)

    @property
    def address(self) -> int:
        """Where the bytes begin; valid as long as this object exists."""
        return ctypes.addressof(self._buffer)

    def wipe(self) -> None:
        """Overwrite the bytes with zeros."""
        ctypes.memset(self.address, 0, len(self._buffer))

    def __repr__(self) -> str:
        return "<secret>"


class CompletionBatch:
    """The array that rbd_poll_io_events fills with completions."""

    __slots__ = ("_array", "_handles", "address")

    def __init__(self) -> None:
        self._array = (c_void_p * POLL_BATCH)()
        self.address = ctypes.addressof(self._array)
        self._handles = memoryview(self._array).cast("B").cast("Q")

    def first(self, count: int) -> list[int]:
        """Return the first `count` completions as addresses."""
        return self._handles[:count].tolist()


class CompletionCell:
    """One pointer that rbd_aio_create_completion writes to."""

    __slots__ = ("_cell", "address")

    def __init__(self) -> None:
        self._cell = c_void_p()
        self.address = ctypes.addressof(self._cell)

    @property
    def value(self) -> int:
        """The completion that was written last."""
        if self._cell.value is None:
            raise MemoryError
        return self._cell.value


def string_at(address: int | None) -> str:
    """Return the C string at `address`; the empty one for NULL."""
    return "" if not address else ctypes.string_at(address).decode(errors="replace")
