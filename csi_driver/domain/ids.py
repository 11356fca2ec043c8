# SPDX-License-Identifier: Apache-2.0
"""Names of volumes: what a CO calls them and where Ceph keeps them.

A volume id carries RBD's own image id, never the image's name: a volume made
later under the same name is another image, which a late DeleteVolume for the
old id cannot hit.  An id that does not decode is a volume that does not exist.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
import urllib.parse
import uuid
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError

LONGEST_ID: Final = 128
"""Bytes in a CSI string field (CSI, 'Size Limits')."""

IMAGE_PREFIX: Final = "csi-vol-"

_VERSION: Final = "v1"
_PARTS: Final = 5
_IMAGE_ID: Final = re.compile(r"[0-9a-zA-Z]{1,64}")
_POOL_ID: Final = re.compile(r"[1-9][0-9]{0,18}")
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
        if not _IMAGE_ID.fullmatch(self.image_id):
            message = f"{self.image_id!r} is not an RBD image id"
            raise InvalidRequestError(message)
        try:
            length = len(str(self))
        except UnicodeEncodeError as error:
            message = "a clusterID or namespace that is not Unicode makes no id"
            raise InvalidRequestError(message) from error
        if length > LONGEST_ID:
            message = (
                f"the id of a volume in cluster {self.location.cluster!r},"
                f" namespace {self.location.namespace!r} would take {length}"
                f" bytes, CSI allows {LONGEST_ID}: shorten the clusterID or"
                " the namespace"
            )
            raise InvalidRequestError(message)

    def __str__(self) -> str:
        where = self.location
        return ":".join(
            (
                _VERSION,
                _quote(where.cluster),
                str(where.pool_id),
                _quote(where.namespace),
                self.image_id,
            ),
        )

    @classmethod
    def parse(cls, text: str) -> VolumeId:
        """Decode a CSI volume id; NotFoundError if it is not one of ours."""
        parts = text.split(":")
        if len(text) > LONGEST_ID or len(parts) != _PARTS or parts[0] != _VERSION:
            raise _unknown(text)
        cluster, pool, namespace, image_id = parts[1:]
        if (
            not cluster
            or not _POOL_ID.fullmatch(pool)
            or not _IMAGE_ID.fullmatch(image_id)
        ):
            raise _unknown(text)
        try:
            location = Location(_unquote(cluster), int(pool), _unquote(namespace))
            found = cls(location, image_id)
        except (UnicodeError, InvalidRequestError):
            raise _unknown(text) from None
        if str(found) != text:  # one volume has one spelling
            raise _unknown(text)
        return found


def check_volume_name(name: str) -> str:
    """Return the name CreateVolume gave, or say what is wrong with it.

    CSI allows any Unicode but control characters, up to 128 bytes.
    """
    if not name:
        message = "the volume name is missing"
        raise InvalidRequestError(message)
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > LONGEST_ID:
        message = f"the volume name has {size} bytes, CSI allows {LONGEST_ID}"
        raise InvalidRequestError(message)
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in name):
        message = "the volume name holds a control character"
        raise InvalidRequestError(message)
    return name


def directory_key(name: str) -> str:
    """Return the fixed-length key under which a volume name is filed."""
    return str(uuid.uuid5(_NAMES, name))


def new_image_name() -> str:
    """Return a fresh image name; images are never renamed."""
    return f"{IMAGE_PREFIX}{uuid.uuid4()}"


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _unquote(text: str) -> str:
    return urllib.parse.unquote(text, errors="strict")


def _unknown(text: str) -> NotFoundError:
    return NotFoundError(
        f"no volume has the id {text[: LONGEST_ID + 1]!r}: it does not have"
        " the form of this driver's ids",
    )
