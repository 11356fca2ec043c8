# SPDX-License-Identifier: Apache-2.0
"""Raw handles of the fake: header area, snapshots and links, but no data."""

from __future__ import annotations

from typing import Final

from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import HeaderExistsError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.luks import parse_header
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.domain.sizes import round_up
from csi_driver.images.values import ChildImage
from csi_driver.images.values import Dependants
from csi_driver.images.values import ImageSnapshot
from csi_driver.images.values import ParentLink
from csi_driver.testing import ceph_fake_snapshots as snapshots
from csi_driver.testing.ceph_fake_handles import FakeImage
from csi_driver.testing.ceph_fake_images import StoredImage
from csi_driver.testing.ceph_fake_images import StoredSnapshot
from csi_driver.testing.ceph_fake_layers import raw_layers

_MAGIC_LENGTH: Final = 8
_SETTING: Final = "conf_"
_SETTINGS: Final = frozenset(
    {
        "rbd_concurrent_management_ops",
        "rbd_qos_bps_limit",
        "rbd_qos_iops_limit",
        "rbd_qos_read_bps_limit",
        "rbd_qos_read_iops_limit",
        "rbd_qos_write_bps_limit",
        "rbd_qos_write_iops_limit",
    },
)
"""The numbers among librbd's settings that the driver may have a use for."""


class FakeRawImage(FakeImage):
    """A handle without encryption: reaches the header area and no data."""

    def raw_size(self) -> RawSize:
        """Return the size in the image header."""
        with self._doing("reading the raw size"):
            return RawSize(self._known().size)

    def striping(self) -> Striping:
        """Return how the image is cut into objects."""
        return self._image.striping

    def features(self) -> frozenset[str]:
        """Return the features by name."""
        return self._image.features

    def dependants(self) -> Dependants:
        """Count snapshots and clones."""
        with self._doing("counting its snapshots and clones") as doing:
            return Dependants(len(self._known().snapshots), len(self._children(doing)))

    def parent(self) -> ParentLink | None:
        """Return what the image reads through."""
        with self._doing("reading its parent"):
            parent = self._known().parent
            return None if parent is None else parent.link

    def snapshots(self) -> list[ImageSnapshot]:
        """Return the snapshots, oldest first."""
        with self._doing("listing its snapshots"):
            return [each.listed for each in self._known().snapshots]

    def children(self) -> list[ChildImage]:
        """Return the clones of all snapshots."""
        with self._doing("listing its clones") as doing:
            return [snapshots.child_image(each) for each in self._children(doing)]

    def create_snapshot(self, name: str) -> None:
        """Take a snapshot."""
        with self._asking(f"taking snapshot {name}") as doing:
            self._require_writable(doing)
            snapshots.create_snapshot(self._image, name)

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot."""
        with self._asking(f"removing snapshot {name}") as doing:
            self._require_writable(doing)
            snapshots.remove_snapshot(self._store, self._image, name)

    def settings(self) -> dict[str, str]:
        """Return librbd's settings that the image itself carries."""
        with self._asking("reading its settings"):
            return {
                key.removeprefix(_SETTING): value
                for key, value in self._image.metadata.items()
                if key.startswith(_SETTING)
            }

    def change_setting(self, name: str, value: str | None) -> None:
        """Set or remove one of librbd's settings."""
        with self._asking(f"changing its setting {name}") as doing:
            self._require_writable(doing)
            if value is None:
                self._image.metadata.pop(_SETTING + name, None)
                return
            if name not in _SETTINGS or not value.isascii() or not value.isdigit():
                message = f"{doing}: librbd takes no {value!r} for it"
                raise InvalidRequestError(message)
            self._image.metadata[_SETTING + name] = value

    def read_header(self, length: int) -> bytes:
        """Read from raw offset 0, header area only."""
        _require_header_area(length)
        with self._asking("reading the header"):
            layers = raw_layers(self._opened.view)
            return layers.read(0, min(length, self._known().size))

    def write_header(self, header: bytes) -> None:
        """Write a header where none is."""
        _require_header_area(len(header))
        if self.parent() is not None:
            message = f"image {self.image_id} is a clone"
            raise PreconditionError(message)
        found = header_kind(self.read_header(_MAGIC_LENGTH))
        if found.encrypted:
            message = f"image {self.image_id} has a {found.value} header already"
            raise HeaderExistsError(message)
        self._write(header, "writing the header")

    def write_clone_header(self, header: bytes, covered: bytes) -> None:
        """Write a formatted clone's header over its parent's bytes."""
        striping = self.striping()
        striping.require_encryptable(self.image_id)
        padded = header.ljust(round_up(len(header), striping.object_size), b"\0")
        room = max(len(padded), parse_header(header).data_offset)
        self._require_room(room)
        if self.parent() is None:
            message = f"image {self.image_id} is no clone"
            raise PreconditionError(message)
        present = self.read_header(len(covered))
        if header_kind(present).encrypted and present != covered:
            message = f"clone {self.image_id} has a header of its own already"
            raise HeaderExistsError(message)
        with self._writing("writing the clone's header"):
            data = self._image.data
            for number, _, _ in data.extents(len(padded), room - len(padded)):
                data.make_empty(number)
            data.write(0, padded)

    def erase_header(self, length: int) -> None:
        """Overwrite the header area with zeros."""
        _require_header_area(length)
        self._write(bytes(length), "erasing the header")

    def _write(self, data: bytes, what: str) -> None:
        self._require_room(len(data))
        with self._writing(what):
            raw_layers(self._image).write(0, data)

    def _children(self, doing: str) -> list[StoredImage]:
        """Return the clones of what this handle shows; asks if there may be some."""
        own = self._opened.snapshot
        shown: tuple[StoredSnapshot, ...] = (
            self._known().snapshots if own is None else (own,)
        )
        if shown:
            self._handle.instance.require_alive(doing)
        return snapshots.children_of(self._store, shown)

    def _require_writable(self, doing: str) -> None:
        if self._handle.read_only:
            message = f"{doing}: the handle is read-only"
            raise InUseError(message)

    def _require_room(self, length: int) -> None:
        present = self.raw_size()
        if length > present.count:
            message = f"image {self.image_id} has {present}, too few"
            raise SizeError(message)


def _require_header_area(length: int) -> None:
    if not 0 < length <= HEADER_ROOM:
        message = f"{length} bytes reach beyond the header area"
        raise InternalError(message)
