# SPDX-License-Identifier: Apache-2.0
"""What the driver asks of Ceph, as small protocols.

A handle is either *raw* or *loaded* from the moment it exists.  A raw handle
reaches the header area and nothing else, because data read or written through
it would be ciphertext in the wrong place; a loaded handle shows effective
sizes.  There is no way from one to the other: librbd has no unload, and a load
has to come right after the open.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol
from typing import Self

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.clusters import CephUser
from csi_driver.domain.ids import Location
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.values import ChildImage
from csi_driver.images.values import Dependants
from csi_driver.images.values import ImageSnapshot
from csi_driver.images.values import LockOwner
from csi_driver.images.values import NewClone
from csi_driver.images.values import NewImage
from csi_driver.images.values import OnProgress
from csi_driver.images.values import ParentLink
from csi_driver.images.values import SnapshotPath
from csi_driver.images.values import Watcher


class Image(Protocol):
    """What a raw and a loaded handle have in common."""

    @property
    def image_id(self) -> str:
        """RBD's id of the image."""

    @property
    def name(self) -> str:
        """The image's name in its pool."""

    def acquire_lock(self) -> None:
        """Take the EXCLUSIVE lock, which refuses every other writer.

        InUseError when somebody holds it.
        """

    def lock_owner(self) -> LockOwner | None:
        """Return who holds the exclusive lock, of either mode."""

    def break_lock(self, owner: LockOwner) -> None:
        """Take the lock from an owner known to be dead, fencing that client.

        librbd puts the owner's whole Rados instance on the blocklist: what
        reaches the cluster from there is FencedError from then on.
        NotFoundError if nobody holds the lock, InUseError if another does.
        """

    def foreign_watchers(self) -> list[Watcher]:
        """Return who has the image open for writing, this client left out."""

    def close(self) -> None:
        """Close the handle; closing twice is no error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class RawImage(Image, Protocol):
    """An image whose encryption is not loaded: header area only.

    A read-only handle does not watch the image: it goes on showing the size
    and the snapshots that it found when it was opened.
    """

    def raw_size(self) -> RawSize:
        """Return the image's size in the image header."""

    def striping(self) -> Striping:
        """Return how the image is cut into objects."""

    def features(self) -> frozenset[str]:
        """Return the image's features by their names in rbd(8)."""

    def dependants(self) -> Dependants:
        """Count snapshots and clones."""

    def parent(self) -> ParentLink | None:
        """Return what the image reads through; None for one that is flat."""

    def snapshots(self) -> list[ImageSnapshot]:
        """Return the snapshots, oldest first."""

    def children(self) -> list[ChildImage]:
        """Return the clones of all snapshots, those in the trash included."""

    def create_snapshot(self, name: str) -> None:
        """Take a snapshot, through the lock's owner if there is one.

        What was acknowledged as flushed before the call is in it.
        AlreadyExistsError if the name is taken.
        """

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot; while clones read it, it lingers and they go on.

        NotFoundError if there is none of that name.
        """

    def settings(self) -> dict[str, str]:
        """Return librbd's settings that the image itself carries."""

    def change_setting(self, name: str, value: str | None) -> None:
        """Set or remove one of librbd's settings; open handles obey at once."""

    def read_header(self, length: int) -> bytes:
        """Read from raw offset 0; at most HEADER_ROOM bytes."""

    def write_header(self, header: bytes) -> None:
        """Write a whole LUKS header at raw offset 0.

        HeaderExistsError if a LUKS magic stands there; SizeError, and nothing
        written, if the image is smaller; AlreadyLoadedError on a loaded handle.
        """

    def write_clone_header(self, header: bytes, covered: bytes) -> None:
        """Write the LUKS header of a formatted clone over its parent's bytes.

        Whole objects are covered up to where the data begins, so that nothing
        of the parent is copied up; what stands behind the header reads as
        zeros.  `covered` are the first bytes of the parent: HeaderExistsError
        unless the clone still shows those, or no LUKS magic at all.
        PreconditionError on an image that has no parent; SizeError if it is too
        small; HeaderError if `header` is none.
        """

    def erase_header(self, length: int) -> None:
        """Overwrite `length` bytes from raw offset 0 with zeros.

        SizeError, and nothing written, if the image is smaller.
        """


class LoadedImage(Image, Protocol):
    """An image whose whole chain is loaded: decrypted, effective offsets."""

    def size(self) -> EffectiveSize:
        """Return the size behind the header."""

    def read(self, offset: int, length: int) -> bytes:
        """Read decrypted bytes at an effective offset."""

    def write(self, offset: int, data: bytes) -> None:
        """Write at an effective offset; durable when it returns."""

    def grow(self, size: EffectiveSize) -> None:
        """Raise the effective size; SizeError if it would shrink."""

    def shrink(self, size: EffectiveSize) -> None:
        """Lower the effective size: what lies behind it is gone.

        SizeError if it would grow.  This handle has to own the lock.
        """

    def flatten(self, on_progress: OnProgress) -> None:
        """Copy what the parent holds, re-encrypted, and let go of the parent.

        Can be repeated after any interruption.  PreconditionError on an image
        without parent, and on one whose snapshots would be orphaned;
        CancelledError if `on_progress` says False; InUseError unless this
        handle owns the lock, since a flatten that is handed to another client
        goes on raw when that one ends.
        """

    def load(self, specs: LoadSpecs) -> None:
        """Refuse: AlreadyLoadedError, always."""

    def write_header(self, header: bytes) -> None:
        """Refuse: AlreadyLoadedError, always.

        librbd itself does not refuse a format here, and destroys the data.
        """


class PlainImage(Image, Protocol):
    """A plaintext image: its bytes as they stand, raw size and offsets.

    For volumes whose mode is none; on an encrypted image it would mix
    ciphertext of several keys.
    """

    def raw_size(self) -> RawSize:
        """Return the image's size in the image header."""

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes at a raw offset."""

    def shrink(self, size: RawSize) -> None:
        """Lower the raw size, as `LoadedImage.shrink` does the effective one."""

    def flatten(self, on_progress: OnProgress) -> None:
        """Copy what the parent holds; as `LoadedImage.flatten`."""


class Pool(Protocol):
    """One pool and RADOS namespace, reached through one Rados instance."""

    @property
    def location(self) -> Location:
        """Where this is, by pool number."""

    @property
    def pool_name(self) -> str:
        """The pool's present name."""

    def at(self, location: Location) -> Pool:
        """Return another place of the cluster, through the same Rados instance.

        NotFoundError if its pool is gone.
        """

    def namespace_exists(self) -> bool:
        """Tell whether images can be made in this RADOS namespace.

        The default namespace is always there; any other has to be created.
        """

    def create_image(self, image: NewImage) -> None:
        """Make an image; AlreadyExistsError if the name is taken."""

    def remove_image(self, name: str) -> None:
        """Remove an image nobody has open for writing.

        NotFoundError if it is gone, InUseError if a handle of any client
        watches it, PreconditionError if it has snapshots or clones.
        """

    def clone_image(self, source: SnapshotPath, to: NewClone) -> None:
        """Make a clone, in this pool, of a snapshot anywhere in the cluster.

        AlreadyExistsError if the name is taken; NotFoundError without the
        snapshot.
        """

    def find_image(self, name: str) -> str | None:
        """Return the id of the image of that name, None without one."""

    def open_raw(
        self, image_id: str, *, read_only: bool = False, snapshot: int = 0
    ) -> RawImage:
        """Open without loading.  NotFoundError if there is no such image.

        With a snapshot's number its bytes are shown, read-only.
        """

    def open_parent(self, link: ParentLink) -> RawImage:
        """Open what a clone reads, read-only, wherever in the cluster it is.

        It may be a lingering snapshot.  NotFoundError if it is gone.
        """

    def open_loaded(
        self,
        image_id: str,
        specs: LoadSpecs,
        *,
        read_only: bool = False,
        snapshot: int = 0,
    ) -> LoadedImage:
        """Open and load at once, with a number the snapshot, read-only.

        SecretError for a wrong passphrase; HeaderError when librbd finds no
        header or one that it cannot use; UnsupportedError for a cipher that
        it does not know and for a striping that it cannot encrypt.
        """

    def open_plain(
        self, image_id: str, *, read_only: bool = False, snapshot: int = 0
    ) -> PlainImage:
        """Open a plaintext image for its data.

        Only for a volume of mode none: whatever stands there is taken for data.
        """

    def listening(
        self, image_id: str, heard: Callable[[bytes], None]
    ) -> AbstractContextManager[None]:
        """Hear what librbd's clients tell each other about an image.

        `heard` is called by threads of Ceph's and must not block.
        """

    def read_metadata(self, image_id: str, key: str) -> str | None:
        """Return one metadata value of an image; None if the key is absent.

        NotFoundError if the image is.
        """

    def swap_metadata(self, image_id: str, key: str, old: str | None, new: str) -> None:
        """Set a metadata value if its present one is `old` (None: absent).

        One atomic operation.  ConflictError if it is not; NotFoundError if
        there is no such image.
        """

    def read_entries(
        self,
        name: str,
        *,
        prefix: str,
        after: str = "",
        limit: int = 1000,
    ) -> list[tuple[str, str]]:
        """Page through an object's omap, in key order; [] without the object."""

    def read_entry(self, name: str, key: str) -> str | None:
        """Return one omap value of an object, None if there is none."""

    def swap_entries(
        self,
        name: str,
        *,
        expect: Mapping[str, str | None],
        put: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> None:
        """Change an object's omap if every expected value is as given.

        One atomic operation; the object is made when it is absent.
        ConflictError if an expectation fails.
        """

    def free_bytes(self) -> int:
        """Return how many more bytes the pool takes, replication counted in."""

    def is_full(self) -> bool:
        """Tell whether Ceph takes no data for the pool: its quota or its disks.

        Writes wait then.  A question to the monitors, bounded in time.
        """


class Ceph(Protocol):
    """One Rados instance: the unit of fencing and of a connection."""

    @property
    def address(self) -> str:
        """This client's address as lock and watcher lists show it."""

    def pool(self, name: str, namespace: str = "") -> Pool:
        """Open a pool by name; NotFoundError without it."""

    def pool_at(self, location: Location) -> Pool:
        """Open a pool by number; NotFoundError without it."""

    def close(self) -> None:
        """Disconnect; handles still open through this instance are closed first.

        Pools opened through it cannot be used any more.
        """


class Connector(Protocol):
    """Makes Rados instances."""

    def connect(self, cluster: str, user: CephUser | None = None) -> Ceph:
        """Connect a new instance in bounded time.

        `user` is None for the driver's own user of that cluster.

        UnavailableError when no monitor answers; CephKeyError when the key is
        refused.
        """
