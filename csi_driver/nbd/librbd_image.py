# SPDX-License-Identifier: Apache-2.0
"""An open, loaded image: what a worker does with it besides I/O.

Opening and loading are one step.  Between them nothing else is called on the
image, because everything before the load is raw and raw I/O ruins headers; what
fails leaves nothing open.  Making, formatting and inspecting images is left to
`images`, submitting I/O to `librbd_backend`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Callable
from collections.abc import Mapping
from ctypes import c_int
from ctypes import c_size_t
from ctypes import c_uint64
from ctypes import c_void_p
from dataclasses import dataclass
from typing import Final

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.nbd import librbd_api as api
from csi_driver.nbd import librbd_errors as errors
from csi_driver.nbd.librbd_connection import REQUIRED
from csi_driver.nbd.librbd_connection import CephClient
from csi_driver.nbd.librbd_connection import Connection
from csi_driver.nbd.librbd_encryption import load_encryption
from csi_driver.nbd.librbd_watch import HeaderWatch


@dataclass(frozen=True, slots=True)
class ImageTarget:
    """Which image, and how it is opened.

    Either `image_id`, RBD's own id, or `name`; with both the id decides and the
    name only appears in messages.  With `snapshot` the image is read-only.
    """

    pool: str
    name: str = ""
    image_id: str = ""
    namespace: str = ""
    snapshot: str = ""
    read_only: bool = False

    def __post_init__(self) -> None:
        if not (self.name or self.image_id):
            raise InvalidRequestError("an image needs a name or an id")
        if self.snapshot and not self.read_only:
            raise InvalidRequestError("a snapshot can only be opened read-only")

    def __str__(self) -> str:
        parts = (self.pool, self.namespace, self.name or f"id {self.image_id}")
        path = "/".join(part for part in parts if part)
        return f"{path}@{self.snapshot}" if self.snapshot else path


@dataclass(frozen=True, slots=True)
class Plaintext:
    """Said in place of load specs when an image really has no encryption."""


type Encryption = LoadSpecs | Plaintext


class LibrbdImage:
    """An image on its own Ceph client, loaded, uncached.

    The constructor connects, opens, loads and checks the effective cache
    setting; the passphrases stay the caller's to wipe.  Raises SecretError for
    a wrong cephx key or passphrase, UnavailableError when no monitor answers,
    NotFoundError, HeaderError for a missing or damaged header, UnsupportedError
    for a foreign cipher, PreconditionError when a cache is configured.

    All sizes are effective bytes.  Methods may be called from any thread and
    block until Ceph has answered.
    """

    def __init__(
        self,
        client: CephClient,
        target: ImageTarget,
        encryption: Encryption,
        connection: Connection | None = None,
    ) -> None:
        """Open it; a `connection` that is there already is the image's from now on."""
        self._library = api.library()
        self.target = target
        self.loaded = False
        self._handle = c_void_p()
        with contextlib.ExitStack() as undo:
            self._connection = connection or Connection(client)
            undo.callback(self.close)
            self._connection.open_pool(target.pool, target.namespace)
            self._open()
            match encryption:
                case LoadSpecs():
                    self.load(encryption)
                case Plaintext():
                    pass
            self._refuse_caches()
            self.address = self._connection.addresses()
            undo.pop_all()

    @property
    def handle(self) -> int:
        """The rbd_image_t, for the backend alone."""
        if self._handle.value is None:
            raise PreconditionError(f"{self.target} is closed")
        return self._handle.value

    @property
    def read_only(self) -> bool:
        """Whether the image was opened so."""
        return self.target.read_only

    # ------------------------------------------------------------- encryption

    def load(self, specs: LoadSpecs) -> None:
        """Load the encryption of the whole chain; AlreadyLoadedError if it is.

        librbd is not even asked for a second load.
        """
        if self.loaded:
            raise AlreadyLoadedError(f"{self.target}: its encryption is loaded already")
        result = load_encryption(self._library, self.handle, specs)
        self._check(result, errors.LOAD, "load its encryption")
        self.loaded = True

    # ------------------------------------------------------------------ sizes

    def size(self) -> int:
        """Return the size in bytes as it is now."""
        size = c_uint64()
        result = self._library["rbd_get_size"](self.handle, ctypes.byref(size))
        self._check(result, errors.GENERAL, "tell its size")
        return size.value

    def grow(self, size: int) -> int:
        """Grow to `size` bytes; return the size afterwards.

        Never shrinks: SizeError when `size` is less than now.  Must be called
        by the owner of the lock, because another client's request would be
        taken for raw bytes.  Others see the growth at once.
        """
        resize = self._library["rbd_resize2"]
        result = resize(self.handle, size, False, _IGNORE_PROGRESS, None)
        self._check(result, errors.RESIZE, f"grow to {size} bytes")
        return self.size()

    def shrink(self, size: int) -> int:
        """Shrink to `size` bytes, which drops what lies behind; return the size.

        SizeError when `size` is more than now; InUseError unless this client
        owns the lock, because the owner would take the number for another one.
        """
        present = self.size()
        if size > present:
            message = f"{self.target} has {present} bytes: {size} would not shrink it"
            raise SizeError(message)
        if not self.is_lock_owner():
            message = f"{self.target} is shrunk by the owner of its lock alone"
            raise InUseError(message)
        resize = self._library["rbd_resize2"]
        result = resize(self.handle, size, True, _IGNORE_PROGRESS, None)
        self._check(result, errors.RESIZE, f"shrink to {size} bytes")
        return self.size()

    # ----------------------------------------------------------------- parent

    def has_parent(self) -> bool:
        """Tell whether the image reads through a parent, as this handle knows."""
        parent, snapshot = api.LinkedImageSpec(), api.SnapshotSpec()
        result = self._library["rbd_get_parent"](
            self.handle, ctypes.byref(parent), ctypes.byref(snapshot)
        )
        if result == -errno.ENOENT:
            return False
        self._check(result, errors.GENERAL, "tell its parent")
        self._library["rbd_linked_image_spec_cleanup"](ctypes.byref(parent))
        self._library["rbd_snap_spec_cleanup"](ctypes.byref(snapshot))
        return True

    def require_flattenable(self) -> None:
        """Return if `flatten` may run now.

        PreconditionError without a parent, and on an image whose snapshots would
        be orphaned; InUseError unless this client owns the lock.
        """
        if not self.has_parent():
            raise PreconditionError(
                f"{self.target} has no parent: there is nothing to flatten"
            )
        if self._orphans_snapshots():
            raise PreconditionError(
                f"{self.target} has snapshots and the feature deep-flatten: they would"
                " lose their parent and never load again; remove them, or run `rbd"
                " feature disable … deep-flatten`, which cannot be undone"
            )
        if not self.is_lock_owner():
            raise InUseError(
                f"{self.target} is flattened by the owner of its lock alone: handed"
                " to another client, that would go on raw when the other ends"
            )

    def flatten(self, on_progress: Callable[[int, int], bool]) -> None:
        """Copy what the parent holds, re-encrypted, and let go of the parent.

        I/O goes on meanwhile, and after any interruption it can be repeated.
        `on_progress` is called with objects done and objects in all, by librbd's
        threads: it must not block, and ends the work by saying False, which is
        CancelledError.  Otherwise raises as `require_flattenable`.
        """
        self.require_flattenable()
        failures: list[Exception] = []

        def report(done: int, total: int, _argument: int | None) -> int:
            try:
                more = on_progress(done, total)
            except Exception as error:  # noqa: BLE001  # never through C
                failures.append(error)
                more = False
            return 0 if more else -errno.ECANCELED

        callback = api.PROGRESS(report)
        flatten = self._library["rbd_flatten_with_progress"]
        result = flatten(self.handle, callback, None)
        if failures:
            raise failures[0]
        self._check(result, errors.FLATTEN, "flatten it")

    def watch(self, on_notify: Callable[[bytes], None]) -> HeaderWatch:
        """Hear what librbd's clients tell each other about the image."""
        return HeaderWatch(self._connection, self.target.image_id, on_notify)

    def _orphans_snapshots(self) -> bool:
        """Tell whether a flatten would take the parent from snapshots, too."""
        features = c_uint64()
        result = self._library["rbd_get_features"](self.handle, ctypes.byref(features))
        self._check(result, errors.GENERAL, "tell its features")
        if not features.value & api.FEATURE_DEEP_FLATTEN:
            return False
        room = c_int()  # none: the number that there must be is all that is wanted
        result = self._library["rbd_snap_list"](self.handle, None, ctypes.byref(room))
        if result != -errno.ERANGE:
            self._check(result, errors.GENERAL, "list its snapshots")
        return room.value > 1

    # ------------------------------------------------------------------- lock

    def acquire_lock(self) -> None:
        """Take the exclusive lock for good; InUseError with the owner's address.

        In this mode librbd gives the lock to nobody who asks for it; other
        clients can still snapshot the image through its owner.
        """
        acquire = self._library["rbd_lock_acquire"]
        result = acquire(self.handle, api.LOCK_MODE_EXCLUSIVE)
        if result in {-errno.EROFS, -errno.EBUSY}:
            owners = ", ".join(self.lock_owners()) or "unknown"
            raise errors.error_for(
                -result,
                errors.LOCK,
                str(self.target),
                f"take its lock, whose owner is {owners}",
            )
        self._check(result, errors.LOCK, "take its exclusive lock")

    def is_lock_owner(self) -> bool:
        """Whether this client owns the exclusive lock."""
        owner = c_int()
        result = self._library["rbd_is_exclusive_lock_owner"](
            self.handle, ctypes.byref(owner)
        )
        self._check(result, errors.GENERAL, "tell the owner of its lock")
        return bool(owner.value)

    def lock_owners(self) -> list[str]:
        """Return the addresses of who holds the exclusive lock; empty if nobody."""
        mode, count = c_int(), c_size_t(8)
        owners = (c_void_p * count.value)()
        result = self._library["rbd_lock_get_owners"](
            self.handle, ctypes.byref(mode), owners, ctypes.byref(count)
        )
        if result == -errno.ENOENT:
            return []
        self._check(result, errors.GENERAL, "tell the owner of its lock")
        try:
            return [api.string_at(each) for each in owners[: count.value]]
        finally:
            self._library["rbd_lock_get_owners_cleanup"](owners, count)

    # ---------------------------------------------------------------- settings

    def settings(self) -> dict[str, tuple[str, str]]:
        """Return the effective RBD options: name to value and source.

        The source is "client", "pool" or "image"; the later ones override.
        """
        count = c_int(_OPTIONS_GUESS)
        while True:
            options = (api.ConfigOption * count.value)()
            result = self._library["rbd_config_image_list"](
                self.handle, options, ctypes.byref(count)
            )
            if result != -errno.ERANGE:
                break
        self._check(result, errors.GENERAL, "list its settings")
        try:
            return {
                each.name.decode(): (
                    each.value.decode(),
                    api.CONFIG_SOURCES[each.source],
                )
                for each in options[: count.value]
            }
        finally:
            self._library["rbd_config_image_list_cleanup"](options, count)

    def _refuse_caches(self) -> None:
        """Make sure that no pool or image setting brings a cache back."""
        effective: Mapping[str, tuple[str, str]] = self.settings()
        for name, wanted in REQUIRED.items():
            if not name.startswith("rbd_"):
                continue
            value, source = effective.get(name, (wanted, "client"))
            if value != wanted:
                raise PreconditionError(
                    f"{self.target}: {name} is {value!r} by a setting of the {source},"
                    f" which has to be {wanted!r} because an answered write must be"
                    f" on the OSDs; remove it with `rbd config {source} rm`"
                )

    # ------------------------------------------------------------------ ending

    def close(self) -> None:
        """Close the image, which waits for its I/O, and disconnect.

        Harmless when repeated.  A fenced image closes too.
        """
        if self._handle.value:
            handle, self._handle = self._handle, c_void_p()
            result = self._library["rbd_close"](handle)
            self._connection.close()
            if result not in {0, -errno.ESHUTDOWN}:
                self._check(result, errors.GENERAL, "close it")
        self._connection.close()

    def _open(self) -> None:
        target = self.target
        function = "rbd_open_by_id" if target.image_id else "rbd_open"
        if target.read_only:
            function += "_read_only"
        name = target.image_id or target.name
        result = self._library[function](
            self._connection.ioctx,
            name.encode(),
            ctypes.byref(self._handle),
            target.snapshot.encode() or None,
        )
        if result < 0:
            self._handle = c_void_p()
        self._check(result, errors.OPEN, "open it")

    def _check(self, result: int, table: errors.Table, action: str) -> int:
        return errors.check(result, table, str(self.target), action)


_OPTIONS_GUESS: Final = 128


def _ignore_progress(_done: int, _total: int, _argument: int | None) -> int:
    """Take librbd's progress reports, which it cannot be told to leave out."""
    return 0


_IGNORE_PROGRESS: Final = api.PROGRESS(_ignore_progress)
