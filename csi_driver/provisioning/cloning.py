# SPDX-License-Identifier: Apache-2.0
"""Making a clone: a volume that reads its source's snapshot, under its own key.

The intent stands in the source's record first, so that neither snapshot nor
source can go.  A volume is cloned through a snapshot of its own, taken for that
alone.  Then the RBD clone, its record with a ring of its own that holds the
ancestors' keys too, and under the clone's lock the header of a formatted clone.
Nothing of the parent is copied, encrypted anew or decrypted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from collections.abc import Sequence

import structlog

from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.lineage import ChildIntent
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.images.chains import FIRST_BYTES
from csi_driver.images.chains import first_bytes_below
from csi_driver.images.chains import read_chain
from csi_driver.images.headers import SPARSE_LENGTH
from csi_driver.images.headers import clone_header
from csi_driver.images.port import Pool
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import create_record
from csi_driver.images.values import NewClone
from csi_driver.images.values import SnapshotPath
from csi_driver.provisioning import taking
from csi_driver.provisioning.blueprints import apply_limits
from csi_driver.provisioning.blueprints import image_id_of
from csi_driver.provisioning.blueprints import require_loads
from csi_driver.provisioning.blueprints import store_keys
from csi_driver.provisioning.children import release
from csi_driver.provisioning.keys_in_advance import VolumeKeys
from csi_driver.provisioning.plan import Plan
from csi_driver.provisioning.sources import CloneSource

_log = structlog.get_logger(__name__)


class ClonedVolume:
    """A clone of a volume or of a snapshot.  `keys` is None for a plaintext one."""

    def __init__(
        self, pool: Pool, plan: Plan, source: CloneSource, keys: VolumeKeys | None
    ) -> None:
        """`pool` and the source's belong to one Rados instance."""
        self.plan = plan
        self._pool = pool
        self._source = source
        self._keys = keys

    def make(self, image_name: str) -> str:
        """Make the RBD clone and its record."""
        source = self._source
        snapshot = self._hold(image_name)
        with source.pool.open_raw(source.record.image_id, read_only=True) as image:
            present = taking.find_taken(image, snapshot)
            if present is None:
                message = f"{source.title} is gone: RBD has no such snapshot any more"
                raise NotFoundError(message)
            path = SnapshotPath(
                pool_name=source.pool.pool_name,
                namespace=source.pool.location.namespace,
                image_name=image.name,
                snapshot_name=present.name,
            )
        parameters = self.plan.parameters
        clone = NewClone(
            name=image_name,
            striping=parameters.striping,
            features=parameters.features,
            data_pool=parameters.data_pool,
        )
        self._pool.clone_image(path, clone)
        image_id = image_id_of(self._pool, image_name)
        create_record(self._pool, self._record(image_id, snapshot))
        return image_id

    def dress(self, image: RawImage, record: Record) -> None:
        """Give the clone its header, and only its own settings."""
        dress_clone(self._pool, image, record, self._keys)

    def finished(self, image_name: str) -> None:
        """Let go of the source: librbd knows the clone as its child by now."""
        try:
            release(self._source.pool, self._source.record.image_id, image_name)
        except DriverError as error:
            # The clone is whole, and whoever looks at the source next does it.
            _log.warning("source not let go", clone=image_name, error=str(error))

    def withdrawn(self, image_name: str) -> None:
        """Let go of the source."""
        with contextlib.suppress(NotFoundError):
            release(self._source.pool, self._source.record.image_id, image_name)

    def _hold(self, image_name: str) -> Snapshot:
        """Write the intent down; return the snapshot, which stays from now on."""
        source = self._source
        image_id = source.record.image_id
        record = change_record(source.pool, image_id, self._intend(image_name))
        (child,) = [each for each in record.children if each.image_name == image_name]
        if source.snapshot is not None:
            return source.snapshot
        snapshot = taking.take(source.pool, image_id, child.snapshot)
        if snapshot.size > self.plan.size and not self._admits(snapshot):
            message = (
                f"{source.title} grew to {snapshot.size} while it was being cloned,"
                f" {self.plan.size} were asked for"
            )
            raise SizeError(message)
        # Its tenant may have written since the head was looked at.
        encrypted = self.plan.mode.encrypted
        source.require_plain_start(snapshot.number, encrypted=encrypted)
        return snapshot

    def _intend(self, image_name: str) -> Callable[[Record], Record]:
        def change(present: Record) -> Record:
            if self._source.snapshot is None:
                present = taking.intended(present, "")
                rbd_name = present.snapshots[-1].rbd_name
            else:
                rbd_name = self._source.snapshot.rbd_name
                self._require_there(present, rbd_name)
            where = self._pool.location
            child = ChildIntent(
                image_name, rbd_name, self.plan.name, where.pool_id, where.namespace
            )
            return present.with_child(child)

        return change

    def _require_there(self, present: Record, rbd_name: str) -> None:
        """Refuse a snapshot that was deleted since it was found."""
        usable = present.state in {VolumeState.READY, VolumeState.DELETED} and any(
            each.rbd_name == rbd_name and each.state is SnapshotState.READY
            for each in present.snapshots
        )
        if not usable:
            message = f"{self._source.title} was deleted"
            raise NotFoundError(message)

    def _admits(self, snapshot: Snapshot) -> bool:
        return not self.plan.capacity.required and self.plan.capacity.admits(
            snapshot.size
        )

    def _record(self, image_id: str, snapshot: Snapshot) -> Record:
        keys = self._keys
        ring, layers = (keys.ring(), keys.layers) if keys else (None, ())
        record = self.plan.record(image_id, ring, layers)
        return dataclasses.replace(
            record,
            desired=max(record.desired, snapshot.size),
            actual=snapshot.size,
            filesystem=snapshot.filesystem,
            ancestors=snapshot.ancestors + 1,
            # Nothing was ever written to an empty one.
            recovered=snapshot.filesystem is FilesystemState.NONE,
        )


class ResumedClone:
    """A clone that an interrupted call left in `creating`, without its source."""

    def __init__(self, pool: Pool, plan: Plan, keys: VolumeKeys | None) -> None:
        self.plan = plan
        self._pool = pool
        self._keys = keys

    def make(self, image_name: str) -> str:
        """Refuse: there is an image already, or it was given up meanwhile."""
        del image_name
        message = (
            f"volume {self.plan.name!r} was given up while it was being made: the"
            " next call begins it anew, from its source"
        )
        raise PendingError(message)

    def dress(self, image: RawImage, record: Record) -> None:
        """Give the clone its header, and only its own settings."""
        dress_clone(self._pool, image, record, self._keys)

    def finished(self, image_name: str) -> None:
        """Hold nothing: the intent is dropped by who looks at the source next."""

    def withdrawn(self, image_name: str) -> None:
        """Hold nothing."""


def dress_clone(
    pool: Pool, image: RawImage, record: Record, keys: VolumeKeys | None
) -> None:
    """Write a formatted clone's header under its lock, and see that it loads.

    A clone takes over its parent's settings, limits among them, unasked.
    """
    apply_limits(image, record)
    if keys is None:
        return
    store_keys(pool, image.image_id, keys)
    covered = first_bytes_below(pool, image.image_id)
    if covered is None:
        message = f"clone {record.name!r} has no parent while it is being made"
        raise PreconditionError(message)
    present = image.read_header(FIRST_BYTES)
    if header_kind(present).encrypted and present != covered:
        image.erase_header(SPARSE_LENGTH)  # an interrupted attempt's
    image.write_clone_header(clone_header(keys.header()), covered)
    chain = read_chain(pool, image.image_id)
    change_record(pool, image.image_id, _with_chain(chain))
    require_loads(pool, record, chain, keys)


def _with_chain(chain: Sequence[Layer]) -> Callable[[Record], Record]:
    """Note what the chain really is: the source may have been flattened meanwhile."""
    encrypted = itertools.takewhile(lambda layer: layer.kind.encrypted, chain)
    layers = tuple(layer.key or "" for layer in encrypted)

    def change(present: Record) -> Record:
        below = len(chain) - 1
        changed = dataclasses.replace(present, layers=layers, ancestors=below)
        return changed.with_needed_keys()

    return change
