# SPDX-License-Identifier: Apache-2.0
"""A raw handle over python-rbd: header area, snapshots and links, but no data."""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Mapping
from typing import Any
from typing import Final

import rbd

from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import HeaderExistsError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.luks import parse_header
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.domain.sizes import round_up
from csi_driver.images.handles import FEATURE_BITS
from csi_driver.images.handles import CephImage
from csi_driver.images.turns import TURNS
from csi_driver.images.values import ChildImage
from csi_driver.images.values import Dependants
from csi_driver.images.values import ImageSnapshot
from csi_driver.images.values import ParentLink
from csi_driver.images.values import SnapshotPath

_MAGIC_LENGTH: Final = 8
_SETTING: Final = "conf_"
"""Opens the metadata keys that librbd takes for settings of the image."""


class CephRawImage(CephImage):
    """A handle without encryption: reaches the header area and no data."""

    def __init__(self, image: Any, own_address: str) -> None:
        super().__init__(image, own_address)
        self._has_turn = False

    def raw_size(self) -> RawSize:
        """Return the size in the image header."""
        with self._doing("reading the raw size"):
            return RawSize(int(self._image.size()))

    def striping(self) -> Striping:
        """Return how the image is cut into objects."""
        return self._striping()

    def features(self) -> frozenset[str]:
        """Return the features by name."""
        with self._doing("reading the features"):
            bits = int(self._image.features())
        return frozenset(name for name, bit in FEATURE_BITS.items() if bits & bit)

    def dependants(self) -> Dependants:
        """Count snapshots and clones, also those in the trash."""
        with self._doing("counting its snapshots and clones"):
            return Dependants(
                snapshots=len(list(self._image.list_snaps())),
                children=len(list(self._image.list_children2())),
            )

    def parent(self) -> ParentLink | None:
        """Return what the image reads through."""
        with self._doing("reading its parent"):
            try:
                spec: Mapping[str, Any] = self._image.get_parent_image_spec()
                path = SnapshotPath(
                    pool_name=str(spec["pool_name"]),
                    namespace=str(spec["pool_namespace"]),
                    image_name=str(spec["image_name"]),
                    snapshot_name=str(spec["snap_name"]),
                )
                return ParentLink(
                    path=path,
                    image_id=str(self._image.parent_id()),
                    overlap=RawSize(int(self._image.overlap())),
                )
            except rbd.ImageNotFound:
                return None

    def snapshots(self) -> list[ImageSnapshot]:
        """Return the snapshots, oldest first."""
        with self._doing("listing its snapshots"):
            found = [self._snapshot(dict(each)) for each in self._image.list_snaps()]
        return sorted(found, key=lambda each: each.number)

    def _snapshot(self, row: Mapping[str, Any]) -> ImageSnapshot:
        number = int(row["id"])
        return ImageSnapshot(
            number=number,
            name=str(row["name"]),
            size=RawSize(int(row["size"])),
            created=_nanoseconds(self._image.get_snap_timestamp(number)),
            lingering=int(row["namespace"]) == rbd.RBD_SNAP_NAMESPACE_TYPE_TRASH,
        )

    def children(self) -> list[ChildImage]:
        """Return the clones of all snapshots."""
        with self._doing("listing its clones"):
            return [
                ChildImage(
                    pool_name=str(each["pool"]),
                    namespace=str(each["pool_namespace"]),
                    image_name=str(each["image"]),
                    image_id=str(each["id"]),
                    trashed=bool(each["trash"]),
                )
                for each in self._image.list_children2()
            ]

    def create_snapshot(self, name: str) -> None:
        """Take a snapshot; PendingError while other handles of the process do."""
        self._take_turn()
        with self._doing(f"taking snapshot {name}"):
            self._image.create_snap(name)

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot; PendingError while other handles of the process do."""
        self._take_turn()
        with self._doing(f"removing snapshot {name}"):
            self._image.remove_snap(name)

    def close(self) -> None:
        """Close the handle, and let others change the snapshots."""
        try:
            super().close()
        finally:
            if self._has_turn:
                TURNS.give_back(self.image_id)
                self._has_turn = False

    def _take_turn(self) -> None:
        if not self._has_turn:
            TURNS.take(self.image_id)
            self._has_turn = True

    def settings(self) -> dict[str, str]:
        """Return librbd's settings that the image itself carries."""
        with self._doing("reading its settings"):
            return {
                key.removeprefix(_SETTING): value
                for key, value in self._metadata()
                if key.startswith(_SETTING)
            }

    def _metadata(self) -> list[tuple[str, str]]:
        try:
            rows = list(self._image.metadata_list())
        except AttributeError:
            # python-rbd 18.2.7 trips over its own message when librbd fails;
            # asking for one key fails in the same way, and says why.
            self._image.metadata_get(_SETTING)
            raise
        return [(str(key), str(value)) for key, value in rows]

    def change_setting(self, name: str, value: str | None) -> None:
        """Set or remove one of librbd's settings."""
        with self._doing(f"changing its setting {name}"):
            if value is not None:
                self._image.metadata_set(_SETTING + name, value)
                return
            try:
                self._image.metadata_remove(_SETTING + name)
            except (KeyError, rbd.ImageNotFound):
                return

    def read_header(self, length: int) -> bytes:
        """Read from raw offset 0, header area only."""
        self._require_header_area(length)
        with self._doing("reading the header"):
            return bytes(self._image.read(0, length))

    def write_header(self, header: bytes) -> None:
        """Write a header where none is."""
        self._require_header_area(len(header))
        if self.parent() is not None:
            message = (
                f"image {self._id} is a clone: a flat image's header would copy up"
                " what its parent has there; a clone has a header of its own kind"
            )
            raise PreconditionError(message)
        found = header_kind(self.read_header(_MAGIC_LENGTH))
        if found.encrypted:
            message = (
                f"image {self._id} has a {found.value} header already; writing"
                " another would make its data unreadable"
            )
            raise HeaderExistsError(message)
        self._require_room(len(header))
        with self._doing("writing the header"):
            self._image.write(header, 0)
            self._image.flush()

    def write_clone_header(self, header: bytes, covered: bytes) -> None:
        """Write a formatted clone's header over its parent's bytes."""
        striping = self.striping()
        striping.require_encryptable(self._id)
        padded = header.ljust(round_up(len(header), striping.object_size), b"\0")
        room = max(len(padded), parse_header(header).data_offset)
        self._require_room(room)
        if self.parent() is None:
            message = f"image {self._id} is no clone; its header is another one"
            raise PreconditionError(message)
        present = self.read_header(len(covered))
        if header_kind(present).encrypted and present != covered:
            message = (
                f"clone {self._id} has a header of its own already; writing another"
                " would make its data unreadable"
            )
            raise HeaderExistsError(message)
        with self._doing("writing the clone's header"):
            # Behind the header the clone gets empty objects.  Without them a
            # flatten would look for its header's end in the parent, and fail
            # for good at a plaintext one, which has no header (18.2.7).
            if room > len(padded):
                self._image.discard(len(padded), room - len(padded))
            self._image.write(padded, 0)
            self._image.flush()

    def erase_header(self, length: int) -> None:
        """Overwrite the header area with zeros."""
        self._require_header_area(length)
        self._require_room(length)
        with self._doing("erasing the header"):
            self._image.write(bytes(length), 0)
            self._image.flush()

    def _require_header_area(self, length: int) -> None:
        if not 0 < length <= HEADER_ROOM:
            message = f"{length} bytes reach beyond the header area"
            raise InternalError(message)

    def _require_room(self, length: int) -> None:
        # librbd would write up to the end and report that as an error.
        present = self.raw_size()
        if length > present.count:
            message = f"image {self._id} has {present}, too few for {length} bytes"
            raise SizeError(message)


def _nanoseconds(time: dt.datetime) -> int:
    """Return nanoseconds since 1970 of what python-rbd gives: UTC, without zone."""
    return calendar.timegm(time.timetuple()) * 1_000_000_000
