# SPDX-License-Identifier: Apache-2.0
"""The controller's work on volumes, behind the calls that `rpc` makes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping

from csi_driver.domain.access import Capability
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.context import volume_context
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import against
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import parse_parameters
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import LARGEST_IMAGE
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import Striping
from csi_driver.images.connections import SharedConnections
from csi_driver.images.port import Ceph
from csi_driver.images.port import Connector
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.keys.material import parse_ceph_user
from csi_driver.keys.material import parse_key_source
from csi_driver.kube.choice import choose_secrets
from csi_driver.kube.contract import SecretReader
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.creation import Creation
from csi_driver.provisioning.deletion import delete_volume
from csi_driver.provisioning.keys_in_advance import KeysInAdvance
from csi_driver.provisioning.listing import list_records
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.plan import Plan
from csi_driver.provisioning.plan import make_plan
from csi_driver.provisioning.plan import require_offered
from csi_driver.provisioning.plan import require_owned
from csi_driver.provisioning.requests import Capacity
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import Expansion
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.provisioning.requests import VolumePage


class Volumes:
    """Implements `requests.Provisioner` on Ceph.

    `secrets` reads Secrets that a class names; None where no API server is
    configured.  `patience` says when an interrupted create is taken over.
    """

    def __init__(
        self,
        *,
        connector: Connector,
        connections: SharedConnections,
        clusters: Clusters,
        collector: Collector,
        secrets: SecretReader | None = None,
        patience: LockPatience | None = None,
    ) -> None:
        self._connector = connector
        self._connections = connections
        self._clusters = clusters
        self._collector = collector
        self._secrets = secrets
        self._patience = patience or LockPatience()

    def create(self, request: CreateRequest) -> VolumeInfo:
        """Create a volume, or return the one that an equal call made."""
        plan = make_plan(request, self._clusters)
        parameters = plan.parameters
        secrets = request.secrets
        if plan.mode.encrypted:
            secrets = choose_secrets(secrets, parameters.secret, self._secrets)
        with (
            _keys(plan, secrets) as keys,
            self._own_instance(parameters.cluster, secrets) as ceph,
        ):
            pool = ceph.pool(parameters.pool, parameters.namespace)
            _require_room(pool)
            if parameters.data_pool:
                _require_room(ceph.pool(parameters.data_pool))
            record = Creation(pool, plan, keys, self._patience).run()
            return _info(pool.location, record)

    def delete(self, volume_id: VolumeId) -> None:
        """Delete a volume; one that does not exist is deleted already."""
        location = volume_id.location
        self._require_configured(location)
        with self._own_instance(location.cluster) as ceph:
            try:
                pool = ceph.pool_at(location)
            except NotFoundError:
                return
            self._require_collected(pool)
            delete_volume(pool, volume_id.image_id)
        self._collector.wake()

    def _require_collected(self, pool: Pool) -> None:
        """Refuse to delete where the collector does not look."""
        where = pool.location
        try:
            config = self._clusters.get(where.cluster)
            config.require(pool.pool_name, where.namespace)
        except InvalidRequestError as error:
            message = f"nothing is deleted where nothing is collected: {error}"
            raise PreconditionError(message) from error

    def get(self, volume_id: VolumeId) -> VolumeInfo:
        """Return a volume; NotFoundError without it."""
        return _info(volume_id.location, self._ready(volume_id))

    def list(self, token: str, limit: int) -> VolumePage:
        """Page through all volumes; limit 0 means no limit."""
        found, next_token = list_records(
            self._connections,
            self._clusters,
            token,
            limit,
        )
        volumes = tuple(_info(location, record) for location, record in found)
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
            if asked != record.parameters:
                return "the volume was made with other class parameters"
        return None

    def _ready(self, volume_id: VolumeId) -> Record:
        with self._connections.pool_at(volume_id.location) as pool:
            return read_record(pool, volume_id.image_id).require_ready()

    def _require_configured(self, location: Location) -> None:
        if location.cluster not in self._clusters.by_id:
            message = (
                f"the volume lies on cluster {location.cluster!r}, which is not"
                " configured here: add it to the cluster config"
            )
            raise PreconditionError(message)

    @contextlib.contextmanager
    def _own_instance(
        self,
        cluster: str,
        secrets: Mapping[str, str] | None = None,
    ) -> Iterator[Ceph]:
        """Connect for work under a lock: what fences it fences nothing else.

        A Secret may name the Ceph user to work as.
        """
        ceph = self._connector.connect(cluster, parse_ceph_user(secrets or {}))
        try:
            yield ceph
        finally:
            ceph.close()


def _keys(
    plan: Plan,
    secrets: Mapping[str, str],
) -> contextlib.AbstractContextManager[KeysInAdvance | None]:
    if not plan.mode.encrypted:
        return contextlib.nullcontext()
    return KeysInAdvance(parse_key_source(secrets), plan.layout)


def _require_room(pool: Pool) -> None:
    """Refuse a pool without room for a header, before anything is written.

    Ceph refuses the first write that takes room, too, but by then there is
    something to clean up.  ExhaustedError says how much room there is.
    """
    try:
        free = pool.free_bytes()
    except NotFoundError:
        return  # a pool so new that the monitors have no figures of it
    if free < HEADER_ROOM:
        message = (
            f"pool {pool.pool_name!r} is full: it takes {free} more bytes, a volume"
            f" needs {HEADER_ROOM} at least; raise its quota or add storage"
        )
        raise ExhaustedError(message)


def _info(location: Location, record: Record) -> VolumeInfo:
    return VolumeInfo(
        volume_id=VolumeId(location, record.image_id),
        size=record.desired,
        context=volume_context(record),
        nodes=tuple(sorted(each.node_id for each in record.exports)),
    )
