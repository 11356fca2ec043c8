# SPDX-License-Identifier: Apache-2.0
"""Making a volume, from wherever an earlier call was interrupted.

The order is: directory entry, image, record in `creating` with its key ring,
owner lock, header, load and compare the size, record `ready`.  A call that
finds any part of it done goes on from there; in `creating` no byte of a
tenant's is on the image, so the header is made anew rather than trusted.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Final

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import header_kind
from csi_driver.domain.chain import specs_for
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import IMAGE_PREFIX
from csi_driver.domain.ids import new_image_name
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.headers import SPARSE_LENGTH
from csi_driver.images.port import NewImage
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import create_record
from csi_driver.images.records import find_record
from csi_driver.images.records import read_record
from csi_driver.provisioning.keys_in_advance import KeysInAdvance
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.plan import Plan

_TRIES: Final = 10


class Creation:
    """One CreateVolume on one pool, through a Rados instance of its own.

    `keys` is None for a plaintext volume.
    """

    def __init__(
        self,
        pool: Pool,
        plan: Plan,
        keys: KeysInAdvance | None,
        patience: LockPatience,
    ) -> None:
        self._pool = pool
        self._plan = plan
        self._keys = keys
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
        entry = self._claimed()
        image_id = self._image_of(entry)
        if image_id is None:
            return None
        record = self._record_of(entry, image_id)
        if record.state in {VolumeState.DELETED, VolumeState.COLLECTING}:
            # A delete that was interrupted before it freed the name.
            self._directory.bury(dataclasses.replace(entry, image_id=image_id))
            return None
        self._plan.require_same(record)
        if record.state is VolumeState.READY:
            return record
        return self._finish(image_id)

    def _claimed(self) -> Entry:
        found = self._directory.find(self._plan.name)
        if found is not None:
            return found
        entry = Entry(self._plan.name, new_image_name())
        self._directory.claim(entry)
        return entry

    def _image_of(self, entry: Entry) -> str | None:
        """Return the entry's image, made if need be; None if it had vanished."""
        image_id = self._pool.find_image(entry.image_name)
        if image_id is None and entry.image_id:
            # Removed by other means: the name is free for a new image.
            self._directory.replace(entry, Entry(entry.name, new_image_name()))
            return None
        if image_id is None:
            self._create_image(entry.image_name)
            image_id = self._pool.find_image(entry.image_name)
            if image_id is None:
                message = f"image {entry.image_name} vanished right after its creation"
                raise ConflictError(message)
        if entry.image_id != image_id:
            self._directory.replace(
                entry, dataclasses.replace(entry, image_id=image_id)
            )
        return image_id

    def _create_image(self, name: str) -> None:
        parameters = self._plan.parameters
        image = NewImage(
            name=name,
            size=self._plan.raw_size,
            striping=parameters.striping,
            features=parameters.features,
            data_pool=parameters.data_pool,
        )
        # Another process that resumes the same entry may have been faster.
        with contextlib.suppress(AlreadyExistsError):
            self._pool.create_image(image)

    def _record_of(self, entry: Entry, image_id: str) -> Record:
        found = find_record(self._pool, image_id)
        if found is not None:
            return found
        if not entry.image_name.startswith(IMAGE_PREFIX):
            # Only an image that CreateVolume made may ever be formatted.
            message = (
                f"volume name {self._plan.name!r} stands for image"
                f" {entry.image_name!r}, which this driver did not make"
            )
            raise AlreadyExistsError(message)
        ring = self._keys.ring() if self._keys else None
        record = self._plan.record(image_id, ring)
        create_record(self._pool, record)
        return record

    def _finish(self, image_id: str) -> Record:
        """Take a `creating` image to `ready`, under its owner lock."""
        with self._pool.open_raw(image_id) as image:
            self._lock(image)
            record = read_record(self._pool, image_id)
            if record.state is not VolumeState.CREATING:
                message = f"volume {self._plan.name!r} was finished by another process"
                raise ConflictError(message)
            if image.raw_size() != self._plan.raw_size:
                message = (
                    f"image {image_id} has {image.raw_size()}, expected were"
                    f" {self._plan.raw_size}; delete it and try again"
                )
                raise InternalError(message)
            if self._keys is not None:
                self._write_header(image, self._keys)
            ready = change_record(
                self._pool,
                image_id,
                lambda present: present.moved_to(VolumeState.READY),
            )
        self._patience.forget(image_id)
        return ready

    def _lock(self, image: RawImage) -> None:
        """Take the lock, from a dead owner too; PendingError from a live one."""
        try:
            image.acquire_lock()
        except InUseError:
            owner = image.lock_owner()
            if owner is None or not self._patience.presumed_dead(image.image_id, owner):
                holder = owner.address if owner else "another process"
                message = f"volume {self._plan.name!r} is being created by {holder}"
                raise PendingError(message) from None
            with contextlib.suppress(NotFoundError):  # it ended by itself
                image.break_lock(owner)
            image.acquire_lock()

    def _write_header(self, image: RawImage, keys: KeysInAdvance) -> None:
        ring = keys.ring()
        change_record(
            self._pool,
            image.image_id,
            lambda present: dataclasses.replace(present, ring=ring),
        )
        if header_kind(image.read_header(8)).encrypted:
            image.erase_header(SPARSE_LENGTH)
        image.write_header(keys.header())
        layer = Layer(image.image_id, HeaderKind.LUKS2, keys.header_uuid)
        specs = specs_for([layer], {keys.header_uuid: keys.dek})
        with self._pool.open_loaded(
            image.image_id,
            specs,
            read_only=True,
        ) as loaded:
            size = loaded.size()
        if size != self._plan.size:
            message = (
                f"image {image.image_id} shows {size} behind its header, expected"
                f" were {self._plan.size}"
            )
            raise InternalError(message)
