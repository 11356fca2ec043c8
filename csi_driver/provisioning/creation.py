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
is begun anew under another image name.  So is one in `creating` that is not what
is asked for now: nobody was ever told of it.

Others may give up at any time what this call is at (see `sweeping`): then it looks
again, and begins anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Final

import structlog

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InternalError
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
from csi_driver.provisioning.giving_up import give_up
from csi_driver.provisioning.owner_lock import IsDead
from csi_driver.provisioning.owner_lock import being_created
from csi_driver.provisioning.owner_lock import take_lock
from csi_driver.provisioning.patience import LockPatience

_TRIES: Final = 10

_log = structlog.get_logger(__name__)


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
        if record.state is VolumeState.READY:
            self._plan.require_same(record)
            return record
        try:
            self._plan.require_same(record)
        except AlreadyExistsError as error:
            _log.info(
                "half-made volume begun anew",
                volume=entry.name,
                image=entry.image_name,
                why=str(error),
            )
            give_up(self._pool, entry, record, self._is_dead(entry.image_id))
            return None
        return self._finish(entry.image_id)

    def _begin(self) -> Entry:
        """Claim the name, make the image and its record, file its id.

        ConflictError, whatever failed, if others gave it up meanwhile: it may
        have failed for that alone.
        """
        origin = self._plan.origin
        source = origin.source if origin else ""
        claimed = Entry(self._plan.name, new_image_name(), source=source)
        self._directory.claim(claimed)
        try:
            image_id = self._blueprint.make(claimed.image_name)
            entry = dataclasses.replace(claimed, image_id=image_id)
            self._directory.replace(claimed, entry)
        except DriverError as error:
            if not self._withdraw(claimed):
                message = f"volume {self._plan.name!r} was given up by others"
                raise ConflictError(message) from error
            raise
        return entry

    def _withdraw(self, claimed: Entry) -> bool:
        """Leave what this call began to the collector; False if others did so."""
        ours = True
        try:
            self._directory.bury(claimed)
        except ConflictError:
            if self._filed(claimed):
                # The image was filed, only the answer to that was lost: others
                # may have finished it by now, and the next call finds it.
                return True
            # Given up by others, who took this call for dead; the collector may
            # have looked before there was an image.
            ours = False
            self._remove_unfiled(claimed.image_name)
        self._blueprint.withdrawn(claimed.image_name)
        return ours

    def _filed(self, claimed: Entry) -> bool:
        entry = self._directory.find(claimed.name)
        return entry is not None and entry.image_name == claimed.image_name

    def _remove_unfiled(self, image_name: str) -> None:
        """Remove an image whose entry is gone, unless it was a volume meanwhile.

        Of a deleted one the collector destroys the header first.
        """
        with contextlib.suppress(NotFoundError):
            image_id = self._pool.find_image(image_name)
            record = find_record(self._pool, image_id) if image_id else None
            if record is None or record.state is VolumeState.CREATING:
                self._pool.remove_image(image_name)

    def _finish(self, image_id: str) -> Record:
        """Take a `creating` image to `ready`, under its owner lock."""
        with self._open(image_id) as image:
            # Once more before the lock: nobody may lock what is being removed.
            self._require_creating(image_id)
            take_lock(image, self._plan.name, self._is_dead(image_id))
            record = self._require_creating(image_id)
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
                lambda present: self._creating(present).moved_to(VolumeState.READY),
            )
            name = image.name
        self._patience.forget(image_id)
        self._blueprint.finished(name)
        return ready

    def _open(self, image_id: str) -> RawImage:
        try:
            return self._pool.open_raw(image_id)
        except NotFoundError as error:
            raise self._other() from error

    def _require_creating(self, image_id: str) -> Record:
        """Return the record; ConflictError if it is not `creating` any more."""
        try:
            return self._creating(read_record(self._pool, image_id))
        except NotFoundError as error:
            raise self._other() from error

    def _creating(self, present: Record) -> Record:
        if present.state is not VolumeState.CREATING:
            raise self._other()
        return present

    def _other(self) -> ConflictError:
        message = f"volume {self._plan.name!r} was finished or given up by others"
        return ConflictError(message)

    def _is_dead(self, image_id: str) -> IsDead:
        return lambda owner: self._patience.presumed_dead(image_id, owner)


def abandon(pool: Pool, entry: Entry, patience: LockPatience) -> None:
    """Give up what a dead call began; PendingError while it may be alive."""
    if not patience.presumed_dead(entry.image_name, entry.image_name):
        raise being_created(entry.name, "another process")
    Directory(pool).bury(entry)
    patience.forget(entry.image_name)
