# SPDX-License-Identifier: Apache-2.0
"""Taking the owner lock of a volume that is being made, from a dead maker too.

Whoever locks such an image has to read its record between the open and the lock:
from the open on nobody removes the image, and one that is being removed must not
be locked (see `collection`).  When a maker is taken for dead is left to callers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.images.port import RawImage

type IsDead = Callable[[str], bool]
"""Told librbd's token of a lock's owner, tells whether that one must be dead."""


def take_lock(image: RawImage, volume: str, is_dead: IsDead) -> None:
    """Take the lock, which fences a dead owner; PendingError from a live one."""
    try:
        image.acquire_lock()
    except InUseError:
        owner = image.lock_owner()
        if owner is None or not is_dead(owner.owner):
            holder = owner.address if owner else "another process"
            raise being_created(volume, holder) from None
        try:
            with contextlib.suppress(NotFoundError):  # it ended by itself
                image.break_lock(owner)
            image.acquire_lock()
        except InUseError:
            raise being_created(volume, "another process") from None


def being_created(volume: str, holder: str) -> PendingError:
    """Return what to raise while somebody may be making the volume."""
    return PendingError(f"volume {volume!r} is being created by {holder}")
