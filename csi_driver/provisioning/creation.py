# SPDX-License-Identifier: Apache-2.0
"""Making a volume, from wherever an earlier call was interrupted.

The order is: directory entry, image, record in `creating` with its key ring,
image id into the entry, owner lock, header, load and compare the size, record
`ready`.  A call that finds an entry with an image id goes on from there; in
`creating` no byte of a tenant's is on the image, so the header is made anew
rather than trusted.  What is made, an empty volume or a clone, is left to a
blueprint.

An entry without image id stands for nothing that can be trusted: librbd makes
an image in several operations, and one that was interrupted between them
cannot be opened, or opens with the wrong striping or without its object map.
Once its maker must be dead, the entry goes to the deleted ones and the volume
is begun anew under another image name.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Final

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.ids import new_image_name
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import find_record
from csi_driver.images.records import read_record
from csi_driver.provisioning.blueprints import Blueprint
from csi_driver.provisioning.patience import LockPatience

_TRIES: Final = 10


class Creation:
    """One CreateVolume on one pool, through a Rados instance of its own."""

    def __init__(
        self,
        pool: Pool,
        blueprint: Blueprint,
        patience: LockPatience,
    ) -> None:
        self._pool = pool
        self._blueprint = blueprint
        self._plan = blueprint.plan
        self._patience = patience
        self._directory = Directory(pool)

    def run(self) -> Record:
        """Return the volume's record in `ready`.

        AlreadyExistsError if the name belongs to a different volume;
        PendingError while another process is making this one.
        """
        for _ in range(_TRIES):
            # Losing a race means that another process came further: look again.
            with contextlib.suppress(ConflictError):
                record = self._attempt()
                if record is not None:
                    return record
        message = f"volume {self._plan.name!r} is being changed by others all the time"
        raise PendingError(message)

    def _attempt(self) -> Record | None:
        """Go once through the steps; None if the name had to be freed first."""
        entry = self._directory.find(self._plan.name)
        if entry is None:
            entry = self._begin()
        elif not entry.image_id:
            abandon(self._pool, entry, self._patience)
            return None
        try:
            record = find_record(self._pool, entry.image_id)
        except NotFoundError:
            # Removed by other means: the name is free for a new image.
            self._directory.bury(entry)
            return None
        if record is None:
            # Only an image of which we know that it is fresh is ever formatted.
            message = (
                f"volume {self._plan.name!r} is the image {entry.image_name!r},"
                " which has lost its record: nothing is done with it"
            )
            raise RecordError(message)
        if record.state in {VolumeState.DELETED, VolumeState.COLLECTING}:
            # A delete that was interrupted before it freed the name.
            self._directory.bury(entry)
            return None
        self._plan.require_same(record)
        if record.state is VolumeState.READY:
            return record
        return self._finish(entry.image_id)

    def _begin(self) -> Entry:
        """Claim the name, make the image and its record, file its id."""
        claimed = Entry(self._plan.name, new_image_name())
        self._directory.claim(claimed)
        try:
            image_id = self._blueprint.make(claimed.image_name)
            entry = dataclasses.replace(claimed, image_id=image_id)
            self._directory.replace(claimed, entry)
        except DriverError:
            self._withdraw(claimed)
            raise
        return entry

    def _withdraw(self, claimed: Entry) -> None:
        """Leave what this call began to the collector."""
        try:
            self._directory.bury(claimed)
        except ConflictError:
            # Given up by others, who took this call for dead; the collector may
            # have looked before there was an image.
            with contextlib.suppress(NotFoundError):
                self._pool.remove_image(claimed.image_name)
        self._blueprint.withdrawn(claimed.image_name)

    def _finish(self, image_id: str) -> Record:
        """Take a `creating` image to `ready`, under its owner lock."""
        with self._pool.open_raw(image_id) as image:
            self._lock(image)
            record = read_record(self._pool, image_id)
            if record.state is not VolumeState.CREATING:
                message = f"volume {self._plan.name!r} was finished by another process"
                raise ConflictError(message)
            self._plan.require_same(record)
            if image.raw_size() != record.raw_size:
                message = (
                    f"image {image_id} has {image.raw_size()}, its record says"
                    f" {record.raw_size}"
                )
                raise InternalError(message)
            self._blueprint.dress(image, record)
            ready = change_record(
                self._pool,
                image_id,
                lambda present: present.moved_to(VolumeState.READY),
            )
            name = image.name
        self._patience.forget(image_id)
        self._blueprint.finished(name)
        return ready

    def _lock(self, image: RawImage) -> None:
        """Take the lock, from a dead owner too; PendingError from a live one."""
        try:
            image.acquire_lock()
        except InUseError:
            owner = image.lock_owner()
            if owner is None or not self._patience.presumed_dead(
                image.image_id, owner.owner
            ):
                holder = owner.address if owner else "another process"
                raise _pending(self._plan.name, holder) from None
            try:
                with contextlib.suppress(NotFoundError):  # it ended by itself
                    image.break_lock(owner)
                image.acquire_lock()
            except InUseError:
                raise _pending(self._plan.name, "another process") from None


def abandon(pool: Pool, entry: Entry, patience: LockPatience) -> None:
    """Give up what a dead call began; PendingError while it may be alive."""
    if not patience.presumed_dead(entry.image_name, entry.image_name):
        raise _pending(entry.name, "another process")
    Directory(pool).bury(entry)
    patience.forget(entry.image_name)


def _pending(name: str, holder: str) -> PendingError:
    return PendingError(f"volume {name!r} is being created by {holder}")
