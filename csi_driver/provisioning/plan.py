# SPDX-License-Identifier: Apache-2.0
"""From a CreateVolume request to what shall be made, before Ceph is touched."""

from __future__ import annotations

import dataclasses

from csi_driver.domain.access import DEFAULT_FILESYSTEM
from csi_driver.domain.access import Capability
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.ids import check_volume_name
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.limits import NO_LIMITS
from csi_driver.domain.limits import IoLimits
from csi_driver.domain.lineage import Origin
from csi_driver.domain.parameters import VolumeParameters
from csi_driver.domain.parameters import parse_parameters
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.sources import CloneSource


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A checked CreateVolume."""

    name: str
    parameters: VolumeParameters
    capacity: CapacityRange
    size: EffectiveSize
    layout: Layout
    mode: EncryptionMode
    block: bool
    limits: IoLimits = NO_LIMITS
    origin: Origin | None = None

    @property
    def raw_size(self) -> RawSize:
        """The raw size of the image to make."""
        return self.layout.raw(self.size)

    def record(
        self, image_id: str, ring: KeyRing | None, layers: tuple[str, ...]
    ) -> Record:
        """Return the first record of the volume."""
        return Record(
            name=self.name,
            image_id=image_id,
            state=VolumeState.CREATING,
            mode=self.mode,
            parameters=self.parameters,
            layout=self.layout,
            desired=self.size,
            actual=self.size,
            block=self.block,
            ring=ring,
            layers=layers,
            limits=self.limits,
            origin=self.origin,
        )

    def require_same(self, record: Record) -> None:
        """Refuse a volume of the same name that is not what was asked for.

        AlreadyExistsError lists what differs.
        """
        differing = [
            field.name
            for field in dataclasses.fields(VolumeParameters)
            if field.name != "pv_name"
            and getattr(record.parameters, field.name)
            != getattr(self.parameters, field.name)
        ]
        if not self.capacity.admits(record.desired):
            differing.append(f"size ({record.desired} there)")
        if record.block != self.block:
            differing.append("volume mode")
        if record.origin != self.origin:
            found = record.origin.source if record.origin else "none"
            differing.append(f"volume content source ({found} there)")
        if record.mode is not self.mode or record.layout != self.layout:
            # Whoever adopted it gave it that name; a claim must not get it.
            differing.append("origin (an adopted image there)")
        if differing:
            message = (
                f"volume {self.name!r} exists already and differs in"
                f" {', '.join(differing)}"
            )
            raise AlreadyExistsError(message)


def make_plan(request: CreateRequest, clusters: Clusters) -> Plan:
    """Check a request; InvalidRequestError or SizeError say what is wrong."""
    asked = check(request, clusters)
    parameters = asked.parameters
    smallest = BLOCK_SIZE
    if not asked.block:
        smallest = (parameters.filesystem or DEFAULT_FILESYSTEM).smallest
    return _plan(
        request,
        asked,
        request.capacity.choose(smallest),
        Layout.for_striping(parameters.striping),
    )


def make_clone_plan(
    request: CreateRequest, asked: Checked, source: CloneSource
) -> Plan:
    """Plan a clone: it has its source's layout and striping, whatever the class says.

    InvalidRequestError, SizeError or PreconditionError say what is wrong.
    """
    parameters = asked.parameters
    encrypted = parameters.encrypted
    source.require_usable_as(request.capabilities, encrypted=encrypted)
    size = source.choose_size(request.capacity)
    below = source.ancestors + 1
    parameters.flatten_policy.require_possible(below, source.title)
    source.require_clonable(encrypted=encrypted)
    return _plan(request, asked.like(source.record), size, source.record.layout)


def plan_as_made(request: CreateRequest, asked: Checked, record: Record) -> Plan:
    """Plan for what is there already, whose source may be gone."""
    return _plan(request, asked.like(record), record.desired, record.layout)


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """What of a request is right by itself, whatever it is made from."""

    name: str
    parameters: VolumeParameters
    block: bool

    def like(self, record: Record) -> Checked:
        """Take the striping from another volume."""
        striping = record.parameters.striping
        parameters = dataclasses.replace(self.parameters, striping=striping)
        return dataclasses.replace(self, parameters=parameters)


def check(request: CreateRequest, clusters: Clusters) -> Checked:
    """Check a request as far as it stands alone; InvalidRequestError says why not."""
    name = check_volume_name(request.name)
    parameters = parse_parameters(request.parameters)
    require_owned(parameters, clusters)
    block = require_offered(request.capabilities)
    parameters = _with_filesystem(parameters, request.capabilities)
    return Checked(name, parameters, block)


def _plan(
    request: CreateRequest, asked: Checked, size: EffectiveSize, layout: Layout
) -> Plan:
    parameters = asked.parameters
    parameters.require_possible(layout.raw(size))
    return Plan(
        name=asked.name,
        parameters=parameters,
        capacity=request.capacity,
        size=size,
        layout=layout,
        mode=EncryptionMode.KEYRING if parameters.encrypted else EncryptionMode.NONE,
        block=asked.block,
        limits=NO_LIMITS.changed_by(request.mutable),
        origin=Origin(str(request.source)) if request.source else None,
    )


def require_owned(parameters: VolumeParameters, clusters: Clusters) -> None:
    """Refuse pools that are not the driver's; InvalidRequestError lists those."""
    config = clusters.get(parameters.cluster)
    config.require(parameters.pool, parameters.namespace)
    if parameters.data_pool:
        config.require_data_pool(parameters.data_pool)


def require_offered(capabilities: tuple[Capability, ...]) -> bool:
    """Check the capabilities together; True if all are for a block device."""
    if not capabilities:
        message = "volume_capabilities are missing"
        raise InvalidRequestError(message)
    for capability in capabilities:
        refusal = capability.refusal()
        if refusal is not None:
            raise InvalidRequestError(refusal)
    return all(capability.block for capability in capabilities)


def _with_filesystem(
    parameters: VolumeParameters,
    capabilities: tuple[Capability, ...],
) -> VolumeParameters:
    """Take the filesystem from wherever the request names it."""
    named = {each.filesystem for each in capabilities if each.filesystem is not None}
    if parameters.filesystem is not None:
        named.add(parameters.filesystem)
    if len(named) > 1:
        names = " and ".join(sorted(each.value for each in named))
        message = f"the request names {names}; one volume has one filesystem"
        raise InvalidRequestError(message)
    return dataclasses.replace(parameters, filesystem=named.pop() if named else None)
