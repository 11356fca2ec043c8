# SPDX-License-Identifier: Apache-2.0
"""What a clone is to be made from, found and judged before anything is made."""

from __future__ import annotations

import dataclasses

from csi_driver.domain.access import Capability
from csi_driver.domain.chain import LUKS_MAGICS
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import against
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.snapshots import Snapshot
from csi_driver.images.chains import FIRST_BYTES
from csi_driver.images.headers import require_header_room
from csi_driver.images.port import Pool
from csi_driver.images.records import read_record
from csi_driver.provisioning.requests import Source
from csi_driver.provisioning.snapshots import find_snapshot


@dataclasses.dataclass(frozen=True, slots=True)
class CloneSource:
    """A usable source: its place, its record, and its snapshot if it is one."""

    asked: Source
    pool: Pool
    record: Record
    snapshot: Snapshot | None

    @property
    def title(self) -> str:
        """How messages speak of it."""
        if self.snapshot is None:
            return f"volume {self.record.name!r}"
        return f"snapshot {self.snapshot.name!r} of volume {self.record.name!r}"

    @property
    def number(self) -> int:
        """RBD's number of the snapshot; 0 for a volume as it is now."""
        return self.snapshot.number if self.snapshot else 0

    @property
    def size(self) -> EffectiveSize:
        """Exported bytes."""
        return self.snapshot.size if self.snapshot else self.record.actual

    @property
    def layers(self) -> tuple[str, ...]:
        """Header UUIDs of its chain as the record has them."""
        return self.snapshot.layers if self.snapshot else self.record.layers

    @property
    def ancestors(self) -> int:
        """Images below it."""
        return self.snapshot.ancestors if self.snapshot else self.record.ancestors

    def require_usable_as(
        self, capabilities: tuple[Capability, ...], *, encrypted: bool
    ) -> None:
        """Refuse what no clone of it can be; InvalidRequestError says why."""
        if self.record.mode.encrypted and not encrypted:
            message = (
                f'{self.title} is encrypted: a clone with encrypted: "false" would'
                " show its ciphertext, or leak its content if it did not"
            )
            raise InvalidRequestError(message)
        filesystem = (self.snapshot or self.record).filesystem
        for capability in capabilities:
            reason = against(filesystem, capability)
            if reason is not None:
                message = f"a clone of {self.title} cannot be used so: {reason}"
                raise InvalidRequestError(message)

    def require_clonable(self, *, encrypted: bool) -> None:
        """Refuse what librbd could not load, or would cut short.

        PreconditionError, HeaderError or UnsupportedError.
        """
        if not encrypted:
            return
        require_header_room(self.record.layout, self.title)
        self.record.parameters.striping.require_encryptable(self.title)
        period = self.record.parameters.striping.period
        if self.record.layout.reserve % period:
            message = (
                f"{self.title} keeps {self.record.layout.reserve} bytes beside its"
                f" data, which are no multiple of its stripe period {period}"
            )
            raise PreconditionError(message)
        self.require_plain_start(self.number, encrypted=encrypted)

    def require_plain_start(self, number: int, *, encrypted: bool) -> None:
        """Refuse a plaintext snapshot that librbd would take for encrypted.

        A tenant can write a LUKS magic (HeaderError); 0 is the head.  librbd
        refuses versions that it does not know, too.
        """
        if self.record.mode.encrypted or not encrypted:
            return
        with self.pool.open_raw(
            self.record.image_id, read_only=True, snapshot=number
        ) as image:
            found = image.read_header(FIRST_BYTES)
        if found.startswith(LUKS_MAGICS):
            message = (
                f"{self.title} is plaintext, but its content begins like a LUKS"
                " header: an encrypted clone could never be loaded"
            )
            raise HeaderError(message)

    def choose_size(self, capacity: CapacityRange) -> EffectiveSize:
        """Return the clone's size: what is asked for, the source's at least.

        SizeError if the source is larger than the request or its limit.
        """
        if capacity.required and self.size.count > capacity.required:
            message = (
                f"{self.title} has {self.size}, more than the {capacity.required}"
                " that were asked for: a clone is never smaller than its source"
            )
            raise SizeError(message)
        if capacity.limit and self.size.count > capacity.limit:
            message = f"{self.title} has {self.size}, above the limit {capacity.limit}"
            raise SizeError(message)
        wanted = max(capacity.required, self.size.count)
        return dataclasses.replace(capacity, required=wanted).choose()


def require_same_cluster(cluster: str, asked: Source) -> None:
    """Refuse a source on another cluster than the clone (InvalidRequestError)."""
    volume_id = asked if isinstance(asked, VolumeId) else asked.volume
    found = volume_id.location.cluster
    if found != cluster:
        message = (
            f"the source {asked} lies on cluster {found!r}, the class names"
            f" {cluster!r}: librbd clones within one cluster only"
        )
        raise InvalidRequestError(message)


def find_source(near: Pool, asked: Source) -> CloneSource:
    """Return what a request wants to clone, reached as the pool `near` is.

    NotFoundError if it does not exist or was deleted; PendingError while it is
    being made.
    """
    volume_id = asked if isinstance(asked, VolumeId) else asked.volume
    try:
        pool = near.at(volume_id.location)
        if isinstance(asked, SnapshotId):
            record, snapshot = find_snapshot(pool, asked)
            return CloneSource(asked, pool, record, snapshot)
        record = read_record(pool, volume_id.image_id).require_ready()
        return CloneSource(asked, pool, record, None)
    except NotFoundError as error:
        message = f"the source {asked} does not exist: {error}"
        raise NotFoundError(message) from error
