# SPDX-License-Identifier: Apache-2.0
"""What a creation makes: the part in which empty volumes and clones differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import header_kind
from csi_driver.domain.chain import specs_for
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.record import Record
from csi_driver.images.headers import SPARSE_LENGTH
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import create_record
from csi_driver.images.values import NewImage
from csi_driver.provisioning.keys_in_advance import VolumeKeys
from csi_driver.provisioning.plan import Plan


class Blueprint(Protocol):
    """How one volume is made.  Every step may be repeated."""

    @property
    def plan(self) -> Plan:
        """What was asked for."""

    def make(self, image_name: str) -> str:
        """Make the image and its record in `creating`; return the image's id."""

    def dress(self, image: RawImage, record: Record) -> None:
        """Write header, keys and settings, under the image's lock."""

    def finished(self, image_name: str) -> None:
        """Let go of what was held while the volume was made."""

    def withdrawn(self, image_name: str) -> None:
        """Let go of what was held for an image that is given up."""


class EmptyVolume:
    """A volume that begins empty.  `keys` is None for a plaintext one."""

    def __init__(self, pool: Pool, plan: Plan, keys: VolumeKeys | None) -> None:
        self.plan = plan
        self._pool = pool
        self._keys = keys

    def make(self, image_name: str) -> str:
        """Make image and record."""
        parameters = self.plan.parameters
        image = NewImage(
            name=image_name,
            size=self.plan.raw_size,
            striping=parameters.striping,
            features=parameters.features,
            data_pool=parameters.data_pool,
        )
        self._pool.create_image(image)
        image_id = image_id_of(self._pool, image_name)
        keys = self._keys
        ring, layers = (keys.ring(), keys.layers) if keys else (None, ())
        create_record(self._pool, self.plan.record(image_id, ring, layers))
        return image_id

    def dress(self, image: RawImage, record: Record) -> None:
        """Write the header and see that it loads."""
        apply_limits(image, record)
        keys = self._keys
        if keys is None:
            return
        store_keys(self._pool, image.image_id, keys)
        if header_kind(image.read_header(8)).encrypted:
            image.erase_header(SPARSE_LENGTH)
        image.write_header(keys.header())
        own = Layer(image.image_id, HeaderKind.LUKS2, keys.layers[0])
        require_loads(self._pool, record, [own], keys)

    def finished(self, image_name: str) -> None:
        """Hold nothing."""

    def withdrawn(self, image_name: str) -> None:
        """Hold nothing."""


def image_id_of(pool: Pool, image_name: str) -> str:
    """Return the id of an image that was just made."""
    image_id = pool.find_image(image_name)
    if image_id is None:
        message = f"image {image_name} vanished right after its creation"
        raise ConflictError(message)
    return image_id


def apply_limits(image: RawImage, record: Record) -> None:
    """Give the image the record's I/O limits, and no settings beside them."""
    wanted = {name: value for name, value in record.limits.settings().items() if value}
    for name in image.settings():
        if name not in wanted:
            image.change_setting(name, None)
    for name, value in wanted.items():
        image.change_setting(name, value)


def store_keys(pool: Pool, image_id: str, keys: VolumeKeys) -> None:
    """Store the ring before the header that it opens is written."""
    ring, layers = keys.ring(), keys.layers
    change_record(
        pool,
        image_id,
        lambda present: dataclasses.replace(
            present, ring=ring, layers=layers
        ).with_needed_keys(),
    )


def require_loads(
    pool: Pool, record: Record, chain: Sequence[Layer], keys: VolumeKeys
) -> None:
    """Load the image with all its layers and compare its size (InternalError)."""
    specs = specs_for(chain, keys.passphrases())
    with pool.open_loaded(record.image_id, specs, read_only=True) as loaded:
        size = loaded.size()
    if size != record.actual:
        message = (
            f"image {record.image_id} shows {size} behind its header, expected"
            f" were {record.actual}"
        )
        raise InternalError(message)
