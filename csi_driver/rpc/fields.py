# SPDX-License-Identifier: Apache-2.0
"""Read the fields of a request: present, well-formed, as domain values.

Every function raises InvalidRequestError with the field's name; an id that does
not decode is NotFoundError.  Limits are CSI's ("Size Limits"): 128 bytes for a
string, 4 KiB for a map in total.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path
from pathlib import PurePosixPath
from typing import Final

from google.protobuf.message import Message

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import parse_filesystem
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import CapacityRange
from csi_driver.provisioning.requests import Source
from csi_driver.rpc.stubs import csi_pb2

LONGEST_STRING: Final = 128
LARGEST_MAP: Final = 4096
LONGEST_PATH: Final = 4095
"""Bytes that Linux takes in one path (PATH_MAX without its NUL)."""


def required(name: str, value: str) -> str:
    """Return a text that has to be there."""
    if not value:
        message = f"{name} is missing"
        raise InvalidRequestError(message)
    return value


def mapping(name: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return a string map that is not too large."""
    size = sum(_length(key) + _length(value) for key, value in given.items())
    if size > LARGEST_MAP:
        message = f"{name} has {size} bytes, CSI allows {LARGEST_MAP}"
        raise InvalidRequestError(message)
    return dict(given)


def path(name: str, value: str) -> Path:
    """Return an absolute path that does not climb."""
    if not required(name, value).startswith("/"):
        message = f"{name} {_shown(value)} is not absolute"
        raise InvalidRequestError(message)
    return plain_path(name, value)


def plain_path(name: str, value: str) -> Path:
    """Return a path, absolute or not, that does not climb."""
    required(name, value)
    if "\0" in value:
        message = f"{name} holds a NUL"
        raise InvalidRequestError(message)
    if _length(value) > LONGEST_PATH:
        message = f"{name} has {_length(value)} bytes, Linux allows {LONGEST_PATH}"
        raise InvalidRequestError(message)
    parts = PurePosixPath(value).parts
    if ".." in parts:
        message = f"{name} {_shown(value)} climbs with '..'"
        raise InvalidRequestError(message)
    if parts in {("/",), ("//",)}:
        message = f"{name} is the root directory"
        raise InvalidRequestError(message)
    return Path(value)


def capacity(holder: Message, *, must: bool = False) -> CapacityRange:
    """Return `capacity_range` of a request; none of it asks for nothing."""
    if not holder.HasField("capacity_range"):
        if must:
            message = "capacity_range is missing"
            raise InvalidRequestError(message)
        return CapacityRange()
    given: csi_pb2.CapacityRange = getattr(holder, "capacity_range")  # noqa: B009  # several message types have it
    found = CapacityRange(given.required_bytes, given.limit_bytes)
    if not found.required and not found.limit:
        message = "capacity_range names neither required_bytes nor limit_bytes"
        raise InvalidRequestError(message)
    return found


def most_entries(given: int) -> int:
    """Return `max_entries` of a list; 0 is no limit."""
    if given < 0:
        message = f"max_entries must not be negative, {given} is"
        raise InvalidRequestError(message)
    return given


def source(request: csi_pb2.CreateVolumeRequest) -> Source | None:
    """Return what a volume shall be cloned from, None if it begins empty.

    NotFoundError if it is not an id of ours.
    """
    if not request.HasField("volume_content_source"):
        return None
    given = request.volume_content_source
    match given.WhichOneof("type"):
        case "snapshot":
            return SnapshotId.parse(required("snapshot_id", given.snapshot.snapshot_id))
        case "volume":
            return VolumeId.parse(required("volume_id", given.volume.volume_id))
        case _:
            message = "volume_content_source names neither snapshot nor volume"
            raise InvalidRequestError(message)


def check_form(given: csi_pb2.VolumeCapability) -> None:
    """Check that a VolumeCapability has both its parts, whatever they say."""
    if given.access_mode.mode == csi_pb2.VolumeCapability.AccessMode.UNKNOWN:
        message = "a volume capability names no access_mode"
        raise InvalidRequestError(message)
    if given.WhichOneof("access_type") is None:
        message = "a volume capability names neither block nor mount"
        raise InvalidRequestError(message)


def capability(given: csi_pb2.VolumeCapability) -> Capability:
    """Return one VolumeCapability whose form is right.

    Whether the driver offers its mode is `Capability.refusal`'s to say.
    """
    check_form(given)
    mode = _mode(given.access_mode.mode)
    if given.HasField("block"):
        return Capability(mode, block=True)
    if given.mount.volume_mount_group:
        message = "volume_mount_group is not offered: ownership is set by kubelet"
        raise InvalidRequestError(message)
    return Capability(
        mode,
        filesystem=parse_filesystem(given.mount.fs_type),
        mount_flags=_mount_flags(given.mount.mount_flags),
    )


def one_capability(holder: Message) -> Capability:
    """Return `volume_capability` of a request, which has to be there."""
    if not holder.HasField("volume_capability"):
        message = "volume_capability is missing"
        raise InvalidRequestError(message)
    given: csi_pb2.VolumeCapability = getattr(holder, "volume_capability")  # noqa: B009  # several message types have it
    return capability(given)


def some_capabilities(
    given: Iterable[csi_pb2.VolumeCapability],
) -> tuple[Capability, ...]:
    """Return `volume_capabilities`, of which there has to be at least one."""
    found = tuple(capability(each) for each in given)
    if not found:
        message = "volume_capabilities is missing"
        raise InvalidRequestError(message)
    return found


def _mode(number: csi_pb2.VolumeCapability.AccessMode.Mode.ValueType) -> AccessMode:
    try:
        return AccessMode(csi_pb2.VolumeCapability.AccessMode.Mode.Name(number))
    except ValueError:
        message = f"access mode {number} is unknown to this driver"
        raise InvalidRequestError(message) from None


def _mount_flags(given: Iterable[str]) -> tuple[str, ...]:
    flags = tuple(given)
    size = sum(_length(flag) for flag in flags)
    if size > LARGEST_MAP:
        message = f"mount_flags has {size} bytes, CSI allows {LARGEST_MAP}"
        raise InvalidRequestError(message)
    for flag in flags:
        if not flag or not flag.isprintable():
            message = f"mount flag {_shown(flag)} is empty or not printable"
            raise InvalidRequestError(message)
    return flags


def _length(text: str) -> int:
    return len(text.encode())


def _shown(text: str) -> str:
    """Quote a text of the caller's, shortened to what CSI allows a string."""
    return repr(text if len(text) <= LONGEST_STRING else text[:LONGEST_STRING] + "…")
