# SPDX-License-Identifier: Apache-2.0
"""Names of volumes and snapshots: what a CO calls them and where Ceph keeps them.

A volume id carries RBD's own image id, never the image's name: a volume made
later under the same name is another image, which a late DeleteVolume for the
old id cannot hit.  A snapshot id is its volume's image id and RBD's number of the
snapshot, which Ceph never gives twice in a pool.  An id that does not decode
stands for something that does not exist.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
import urllib.parse
import uuid
from typing import Final

from csi_driver.domain.described import Described
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError

LONGEST_ID: Final = 128
"""Bytes in a CSI string field (CSI, 'Size Limits')."""

IMAGE_PREFIX: Final = "csi-vol-"

_VOLUME: Final = "v1"
_SNAPSHOT: Final = "s1"
ID_PARTS: Final = (
    Described(
        "kind", f"and version: `{_VOLUME}` for a volume, `{_SNAPSHOT}` a snapshot"
    ),
    Described("cluster", "the `clusterID`, percent-encoded"),
    Described("pool", "the pool's number, which survives a rename"),
    Described("namespace", "the RADOS namespace, percent-encoded; may be empty"),
    Described("image", "RBD's own id of the image, which no other image ever has"),
    Described("snapshot", "in the id of a snapshot only: RBD's number of it"),
)
"""What an id consists of, in this order, with colons in between."""
_PARTS: Final = 4
"""Of what both kinds of id begin with: cluster, pool, namespace, image."""
_IMAGE_ID: Final = re.compile(r"[0-9a-zA-Z]{1,64}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,18}")
_NAMES: Final = uuid.UUID("6f0d5b2e-8a3c-5c41-9d6a-1f2f6d2b7c90")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Location:
    """A pool and RADOS namespace of one cluster; "" is the default namespace.

    The pool is named by its number, which survives a rename.
    """

    cluster: str
    pool_id: int
    namespace: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeId:
    """One volume: its location and RBD's image id.  str() is the CSI id."""

    location: Location
    image_id: str

    def __post_init__(self) -> None:
        """Refuse what cannot be written down in a CSI id."""
        _require_image_id(self.image_id)
        _require_short(self, self.location)

    def __str__(self) -> str:
        return ":".join((_VOLUME, *_spelt(self.location), self.image_id))

    @classmethod
    def parse(cls, text: str) -> VolumeId:
        """Decode a CSI volume id; NotFoundError if it is not one of ours."""
        kind, *parts = text.split(":")
        if len(text) > LONGEST_ID or kind != _VOLUME or len(parts) != _PARTS:
            raise _unknown("volume", text)
        try:
            found = cls(_location(parts), parts[-1])
        except (ValueError, InvalidRequestError):
            raise _unknown("volume", text) from None
        if str(found) != text:  # one volume has one spelling
            raise _unknown("volume", text)
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotId:
    """One snapshot: its volume and RBD's number.  str() is the CSI id."""

    volume: VolumeId
    number: int

    def __post_init__(self) -> None:
        """Refuse what cannot be written down in a CSI id."""
        if not _NUMBER.fullmatch(str(self.number)):
            message = f"{self.number!r} is not the number of an RBD snapshot"
            raise InvalidRequestError(message)
        _require_short(self, self.volume.location)

    def __str__(self) -> str:
        where, image = _spelt(self.volume.location), self.volume.image_id
        return ":".join((_SNAPSHOT, *where, image, str(self.number)))

    @classmethod
    def parse(cls, text: str) -> SnapshotId:
        """Decode a CSI snapshot id; NotFoundError if it is not one of ours."""
        kind, *parts = text.split(":")
        if len(text) > LONGEST_ID or kind != _SNAPSHOT or len(parts) != _PARTS + 1:
            raise _unknown("snapshot", text)
        *volume, number = parts
        try:
            if not _NUMBER.fullmatch(number):
                raise _unknown("snapshot", text)
            found = cls(VolumeId(_location(volume), volume[-1]), int(number))
        except (ValueError, InvalidRequestError):
            raise _unknown("snapshot", text) from None
        if str(found) != text:
            raise _unknown("snapshot", text)
        return found


def check_volume_name(name: str) -> str:
    """Return the name CreateVolume gave, or say what is wrong with it.

    CSI allows any Unicode but control characters, up to 128 bytes.
    """
    return _check_name("volume", name)


def check_snapshot_name(name: str) -> str:
    """Return the name CreateSnapshot gave; rules as for a volume's."""
    return _check_name("snapshot", name)


def _check_name(kind: str, name: str) -> str:
    if not name:
        message = f"the {kind} name is missing"
        raise InvalidRequestError(message)
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > LONGEST_ID:
        message = f"the {kind} name has {size} bytes, CSI allows {LONGEST_ID}"
        raise InvalidRequestError(message)
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in name):
        message = f"the {kind} name holds a control character"
        raise InvalidRequestError(message)
    return name


def directory_key(name: str) -> str:
    """Return the fixed-length key under which a name is filed."""
    return str(uuid.uuid5(_NAMES, name))


def static_volume_name(image_id: str) -> str:
    """Return what `volume adopt` calls the PersistentVolume of an image."""
    return f"rbdcrypt-{image_id}"


def new_image_name() -> str:
    """Return a fresh image name; images are never renamed."""
    return f"{IMAGE_PREFIX}{uuid.uuid4()}"


def _spelt(where: Location) -> tuple[str, str, str]:
    return _quote(where.cluster), str(where.pool_id), _quote(where.namespace)


def _location(parts: list[str]) -> Location:
    """Read cluster, pool and namespace; ValueError if they are malformed."""
    cluster, pool, namespace, *_ = parts
    if not cluster or not _NUMBER.fullmatch(pool):
        message = "an id names a cluster and a pool"
        raise ValueError(message)
    return Location(_unquote(cluster), int(pool), _unquote(namespace))


def _require_image_id(image_id: str) -> None:
    if not _IMAGE_ID.fullmatch(image_id):
        message = f"{image_id!r} is not an RBD image id"
        raise InvalidRequestError(message)


def _require_short(found: VolumeId | SnapshotId, where: Location) -> None:
    """Refuse an id that CSI has no room for."""
    kind = "volume" if isinstance(found, VolumeId) else "snapshot"
    try:
        length = len(str(found))
    except UnicodeEncodeError as error:
        message = "a clusterID or namespace that is not Unicode makes no id"
        raise InvalidRequestError(message) from error
    if length > LONGEST_ID:
        message = (
            f"the id of a {kind} in cluster {where.cluster!r},"
            f" namespace {where.namespace!r} would take {length}"
            f" bytes, CSI allows {LONGEST_ID}: shorten the clusterID or"
            " the namespace"
        )
        raise InvalidRequestError(message)


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _unquote(text: str) -> str:
    return urllib.parse.unquote(text, errors="strict")


def _unknown(kind: str, text: str) -> NotFoundError:
    return NotFoundError(
        f"no {kind} has the id {text[: LONGEST_ID + 1]!r}: it does not have"
        " the form of this driver's ids",
    )
