# SPDX-License-Identifier: Apache-2.0
"""What a stage may do with the bytes it finds: mount, make, or refuse.

A filesystem is made once in a volume's life, on a device that shows no
signature, under the owner lock.  Every doubt ends in an error, because mkfs on
a device that was only *read* wrongly destroys the data behind it.
"""

from __future__ import annotations

import enum
from typing import Final

from csi_driver.domain.access import DEFAULT_FILESYSTEM
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import PreconditionError


class FilesystemState(enum.Enum):
    """What the record says of the content of a volume."""

    NONE = "none"
    """Fresh: nobody ever had it."""
    MAKING = "making"
    """A mkfs was begun; nothing has mounted the volume yet."""
    EXT4 = "ext4"
    XFS = "xfs"
    RAW = "raw"
    """Handed out as a block device; its content is the tenant's."""
    FOREIGN = "foreign"
    """Adopted; whatever stands there was made by others."""


MADE: Final = {
    Filesystem.EXT4: FilesystemState.EXT4,
    Filesystem.XFS: FilesystemState.XFS,
}
_MADE_BY: Final = {state: filesystem for filesystem, state in MADE.items()}


class Step(enum.Enum):
    """What the node does with the attached device."""

    HAND_OUT = "hand out"
    """Leave it alone: it is a block device."""
    MAKE = "make"
    """mkfs, then mount."""
    MOUNT = "mount"


def plan(
    state: FilesystemState,
    capability: Capability,
    signature: str | None,
    *,
    read_only: bool,
) -> tuple[Step, Filesystem | None]:
    """Decide what a stage does.

    `signature` is the type that probing the device found (a filesystem's
    name, or "partition table"), None for a blank device.  Returns the step
    and the filesystem it concerns.  PreconditionError says what stands
    against it.
    """
    if capability.block:
        if state is FilesystemState.MAKING:
            raise _refuse("a mkfs on it was begun and not finished", "as a filesystem")
        return Step.HAND_OUT, None
    if state is FilesystemState.RAW:
        raise _refuse("it was handed out as a block device before", "as a block device")
    if state in {FilesystemState.NONE, FilesystemState.MAKING}:
        wanted = capability.filesystem or DEFAULT_FILESYSTEM
        if read_only:
            raise _refuse("no filesystem was made on it yet", "writable once")
        if state is FilesystemState.NONE and signature is not None:
            message = (
                "the record says that the volume is fresh, but the device"
                f" already carries {signature}: nothing was overwritten; if"
                " its content is not needed, delete the volume"
            )
            raise PreconditionError(message)
        return Step.MAKE, wanted
    return Step.MOUNT, _existing(state, capability, signature)


def against(state: FilesystemState, capability: Capability) -> str | None:
    """Say what speaks against a use as far as the record alone tells; None if nothing.

    Only a stage, which sees the device, knows the rest.
    """
    made = _MADE_BY.get(state)
    if state is FilesystemState.FOREIGN:
        made = capability.filesystem or DEFAULT_FILESYSTEM
    try:
        plan(state, capability, made.value if made else None, read_only=False)
    except PreconditionError as error:
        return str(error)
    return None


def _existing(
    state: FilesystemState,
    capability: Capability,
    signature: str | None,
) -> Filesystem:
    """Return the filesystem to mount, if record, device and request agree."""
    if state is FilesystemState.FOREIGN:
        names = {each.value: each for each in Filesystem}
        if signature not in names:
            found = signature or "no filesystem"
            message = (
                f"the adopted image carries {found}, not ext4 or xfs: make one on it"
                " by hand, or adopt the image with --block"
            )
            raise PreconditionError(message)
        found_filesystem = names[signature]
    else:
        found_filesystem = _MADE_BY[state]
        if signature != found_filesystem.value:
            message = (
                f"the record says {found_filesystem.value}, the device carries"
                f" {signature or 'no signature'}: nothing was changed; check the"
                " volume before it is used"
            )
            raise PreconditionError(message)
    wanted = capability.filesystem
    if wanted is not None and wanted is not found_filesystem:
        message = (
            f"{wanted.value} was asked for, the volume carries"
            f" {found_filesystem.value}: ask for that"
            " (csi.storage.k8s.io/fstype of the class)"
        )
        raise PreconditionError(message)
    return found_filesystem


def _refuse(found: str, remedy: str) -> PreconditionError:
    return PreconditionError(
        f"the volume cannot be staged like this: {found}; stage it {remedy}",
    )
