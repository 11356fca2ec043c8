# SPDX-License-Identifier: Apache-2.0
"""The controller's work on volumes, behind the calls that `rpc` makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from csi_driver.domain.access import Capability
from csi_driver.domain.context import volume_context
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import against
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Notices
from csi_driver.domain.notices import Untold
from csi_driver.domain.parameters import parse_parameters
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import LARGEST_IMAGE
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import Striping
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.kube.choice import choose_secrets
from csi_driver.provisioning.blueprints import EmptyVolume
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.creation import Creation
from csi_driver.provisioning.deletion import delete_volume
from csi_driver.provisioning.limiting import change_limits
from csi_driver.provisioning.listing import list_records
from csi_driver.provisioning.making import Making
from csi_driver.provisioning.making import new_keys
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.places import require_room
from csi_driver.provisioning.plan import check
from csi_driver.provisioning.plan import make_plan
from csi_driver.provisioning.plan import require_offered
from csi_driver.provisioning.plan import require_owned
from csi_driver.provisioning.requests import Capacity
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import Expansion
from csi_driver.provisioning.requests import SnapshotInfo
from csi_driver.provisioning.requests import SnapshotPage
from csi_driver.provisioning.requests import SnapshotRequest
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.provisioning.requests import VolumePage
from csi_driver.provisioning.snapshot_service import Snapshots
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.sources import require_same_cluster
from csi_driver.provisioning.telling import refusals_told
from csi_driver.provisioning.views import volume_info


class Volumes:
    """Implements `requests.Provisioner` on Ceph.

    `secrets` reads Secrets that a class or a source's PersistentVolume names.
    `patience` says when an interrupted create is taken over.
    """

    def __init__(
        self,
        *,
        places: Places,
        collector: Collector,
        secrets: SourceSecrets,
        patience: LockPatience | None = None,
        notices: Notices | None = None,
    ) -> None:
        self._notices = notices or Untold()
        self._places = places
        self._connections = places.connections
        self._clusters = places.clusters
        self._collector = collector
        self._secrets = secrets
        self._patience = patience or LockPatience()
        self._snapshots = Snapshots(places, collector, secrets, self._patience)

    def create(self, request: CreateRequest) -> VolumeInfo:
        """Create a volume, or return the one that an equal call made."""
        with refusals_told(self._notices, request):
            return self._create(request)

    def _create(self, request: CreateRequest) -> VolumeInfo:
        asked = check(request, self._clusters)
        parameters = asked.parameters
        if request.source is not None:
            require_same_cluster(parameters.cluster, request.source)
        plan = None if request.source else make_plan(request, self._clusters)
        secrets = request.secrets
        if parameters.encrypted:
            secrets = choose_secrets(secrets, parameters.secret, self._secrets.secrets)
        with self._places.own_instance(parameters.cluster, secrets) as ceph:
            pool = ceph.pool(parameters.pool, parameters.namespace)
            require_room(pool)
            if parameters.data_pool:
                require_room(ceph.pool(parameters.data_pool))
            if plan is None:
                making = Making(self._places, pool, request, asked, secrets)
                record = making.clone(self._secrets, self._patience)
            else:
                with new_keys(plan, secrets) as keys:
                    blueprint = EmptyVolume(pool, plan, keys)
                    record = Creation(pool, blueprint, self._patience).run()
            return volume_info(pool.location, record)

    def delete(self, volume_id: VolumeId) -> None:
        """Delete a volume; one that does not exist is deleted already."""
        location = volume_id.location
        self._places.require_configured(location)
        with self._places.own_instance(location.cluster) as ceph:
            try:
                pool = ceph.pool_at(location)
            except NotFoundError:
                return
            self._places.require_collected(pool)
            delete_volume(pool, volume_id.image_id)
        self._collector.wake()

    def create_snapshot(self, request: SnapshotRequest) -> SnapshotInfo:
        """Take a snapshot, or return the one that an equal call took."""
        return self._snapshots.create(request)

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        """Delete a snapshot; one that does not exist is deleted already."""
        self._snapshots.delete(snapshot_id)

    def get_snapshot(self, snapshot_id: SnapshotId) -> SnapshotInfo:
        """Return a snapshot; NotFoundError without it."""
        return self._snapshots.get(snapshot_id)

    def list_snapshots(
        self, token: str, limit: int, volume: VolumeId | None = None
    ) -> SnapshotPage:
        """Page through all snapshots, or those of one volume."""
        return self._snapshots.page(token, limit, volume)

    def modify(self, volume_id: VolumeId, mutable: Mapping[str, str]) -> None:
        """Change a volume's I/O limits; open handles obey at once."""
        self._places.require_configured(volume_id.location)
        with self._connections.pool_at(volume_id.location) as pool:
            change_limits(pool, volume_id.image_id, mutable)

    def get(self, volume_id: VolumeId) -> VolumeInfo:
        """Return a volume; NotFoundError without it."""
        return volume_info(volume_id.location, self._ready(volume_id))

    def list(self, token: str, limit: int) -> VolumePage:
        """Page through all volumes; limit 0 means no limit."""
        found, next_token = list_records(
            self._connections,
            self._clusters,
            token,
            limit,
        )
        volumes = tuple(volume_info(location, record) for location, record in found)
        return VolumePage(volumes, next_token)

    def expand(self, volume_id: VolumeId, capacity: CapacityRange) -> Expansion:
        """Promise a bigger size; the handle that holds the lock resizes.

        A resize asked of librbd from here would travel to the lock's owner,
        who would read the raw number as an effective one.
        """
        # Without a size that is required, there is nothing to grow to.
        wanted = capacity.choose() if capacity.required else EffectiveSize(0)

        def promise(present: Record) -> Record:
            present.require_ready()
            size = max(present.desired, wanted)
            if not capacity.admits(size):
                message = (
                    f"volume {present.name!r} has {present.desired}, more than the"
                    f" limit of {capacity.limit}"
                )
                raise SizeError(message)
            # A promise is never taken back, so it has to be one that can be kept.
            present.parameters.require_possible(present.layout.raw(size))
            return dataclasses.replace(present, desired=size)

        with self._connections.pool_at(volume_id.location) as pool:
            record = change_record(pool, volume_id.image_id, promise)
        return Expansion(record.desired, node_required=True)

    def capacity(
        self,
        parameters: Mapping[str, str],
        capabilities: tuple[Capability, ...],
    ) -> Capacity:
        """Return the room for volumes with these class parameters.

        Without parameters it is the room in the emptiest of the driver's
        pools: pools share their disks, so adding them up would count twice.
        """
        if capabilities:
            require_offered(capabilities)
        if not parameters:
            return self._all_room()
        checked = parse_parameters(parameters)
        require_owned(checked, self._clusters)
        holder = checked.data_pool or checked.pool
        reserve = Layout.for_striping(checked.striping).reserve
        room = self._room(checked.cluster, holder, reserve)
        return Capacity(available=room, largest=room, smallest=BLOCK_SIZE)

    def _all_room(self) -> Capacity:
        reserve = Layout.for_striping(Striping()).reserve
        rooms = [
            self._room(config.cluster, pool.name, reserve)
            for config in self._clusters.by_id.values()
            for pool in config.pools
        ]
        return Capacity(
            available=max(rooms, default=0),
            largest=max(rooms, default=0),
            smallest=BLOCK_SIZE,
        )

    def _room(self, cluster: str, pool: str, reserve: int) -> int:
        """Return the bytes that one more volume of a pool could export."""
        with self._connections.pool(cluster, pool) as opened:
            free = opened.free_bytes()
        room = min(max(0, free - reserve), LARGEST_IMAGE)
        return room - room % BLOCK_SIZE

    def refusal(
        self,
        volume_id: VolumeId,
        capabilities: tuple[Capability, ...],
        context: Mapping[str, str],
        parameters: Mapping[str, str],
    ) -> str | None:
        """Return why the volume cannot be used like this, None if it can."""
        record = self._ready(volume_id)
        for capability in capabilities:
            reason = capability.refusal()
            reason = reason or against(record.filesystem, capability)
            if reason is not None:
                return reason
        known = volume_context(record)
        differing = sorted(
            key for key, value in context.items() if known.get(key, value) != value
        )
        if differing:
            return f"volume_context differs in {', '.join(differing)}"
        if parameters:
            try:
                asked = parse_parameters(parameters)
            except DriverError as error:
                return str(error)
            asked = dataclasses.replace(
                asked,
                pv_name=record.parameters.pv_name,
                filesystem=asked.filesystem or record.parameters.filesystem,
            )
            if record.origin is not None:  # a clone is striped as its source is
                striping = record.parameters.striping
                asked = dataclasses.replace(asked, striping=striping)
            if asked != record.parameters:
                return "the volume was made with other class parameters"
        return None

    def _ready(self, volume_id: VolumeId) -> Record:
        with self._connections.pool_at(volume_id.location) as pool:
            return read_record(pool, volume_id.image_id).require_ready()
