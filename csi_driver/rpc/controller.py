# SPDX-License-Identifier: Apache-2.0
"""The Controller service: proto to domain and back, nothing decided here."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf.wrappers_pb2 import Int64Value

from csi_driver.domain.access import Capability
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.ids import check_volume_name
from csi_driver.domain.limits import NO_LIMITS
from csi_driver.domain.parameters import without_claim
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import Source
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.rpc import fields
from csi_driver.rpc.snapshots import SnapshotController
from csi_driver.rpc.stubs import csi_pb2

_KIND: Final = csi_pb2.ControllerServiceCapability

CAPABILITIES: Final = (
    _KIND.RPC.CREATE_DELETE_VOLUME,
    _KIND.RPC.LIST_VOLUMES,
    _KIND.RPC.GET_CAPACITY,
    _KIND.RPC.CREATE_DELETE_SNAPSHOT,
    _KIND.RPC.LIST_SNAPSHOTS,
    _KIND.RPC.CLONE_VOLUME,
    _KIND.RPC.EXPAND_VOLUME,
    _KIND.RPC.GET_VOLUME,
    _KIND.RPC.SINGLE_NODE_MULTI_WRITER,
    _KIND.RPC.MODIFY_VOLUME,
    _KIND.RPC.GET_SNAPSHOT,
)
"""LIST_VOLUMES_PUBLISHED_NODES is not among them: it speaks of nodes that
ControllerPublishVolume was called for, and that RPC is not offered."""


class Controller(SnapshotController):
    """The whole service: volumes here, snapshots inherited."""

    def CreateVolume(
        self,
        request: csi_pb2.CreateVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.CreateVolumeResponse:
        """Create a volume, empty or a clone, or return what an equal call made."""
        name = check_volume_name(request.name)
        capabilities = fields.some_capabilities(request.volume_capabilities)
        _refuse_modes(capabilities)
        info = self._provisioner.create(
            CreateRequest(
                name=name,
                capacity=fields.capacity(request),
                capabilities=capabilities,
                parameters=fields.mapping("parameters", request.parameters),
                secrets=fields.mapping("secrets", request.secrets),
                source=fields.source(request),
                mutable=_mutable(request.mutable_parameters),
            ),
        )
        return csi_pb2.CreateVolumeResponse(volume=_volume(info))

    def DeleteVolume(
        self,
        request: csi_pb2.DeleteVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.DeleteVolumeResponse:
        """Delete a volume; what does not exist is deleted already."""
        text = fields.required("volume_id", request.volume_id)
        try:
            volume_id = VolumeId.parse(text)
        except NotFoundError:
            return csi_pb2.DeleteVolumeResponse()
        self._provisioner.delete(volume_id)
        return csi_pb2.DeleteVolumeResponse()

    def ValidateVolumeCapabilities(
        self,
        request: csi_pb2.ValidateVolumeCapabilitiesRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Confirm the capabilities, or say in a message why not."""
        text = fields.required("volume_id", request.volume_id)
        if not request.volume_capabilities:
            message = "volume_capabilities is missing"
            raise InvalidRequestError(message)
        volume_id = VolumeId.parse(text)
        refusal = self._refusal(volume_id, request)
        if refusal is not None:
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message=refusal)
        kind = csi_pb2.ValidateVolumeCapabilitiesResponse
        return kind(
            confirmed=kind.Confirmed(
                volume_context=request.volume_context,
                volume_capabilities=request.volume_capabilities,
                parameters=request.parameters,
                mutable_parameters=request.mutable_parameters,
            ),
        )

    def ListVolumes(
        self,
        request: csi_pb2.ListVolumesRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ListVolumesResponse:
        """List the volumes page by page."""
        limit = fields.most_entries(request.max_entries)
        page = self._provisioner.list(request.starting_token, limit)
        entry = csi_pb2.ListVolumesResponse.Entry
        return csi_pb2.ListVolumesResponse(
            entries=[entry(volume=_volume(info)) for info in page.volumes],
            next_token=page.next_token,
        )

    def GetCapacity(
        self,
        request: csi_pb2.GetCapacityRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.GetCapacityResponse:
        """Say how much room there is for volumes of a class."""
        capabilities = tuple(map(fields.capability, request.volume_capabilities))
        _refuse_modes(capabilities)
        given = fields.mapping("parameters", request.parameters)
        room = self._provisioner.capacity(without_claim(given), capabilities)
        return csi_pb2.GetCapacityResponse(
            available_capacity=room.available,
            maximum_volume_size=Int64Value(value=room.largest),
            minimum_volume_size=Int64Value(value=room.smallest),
        )

    def ControllerGetVolume(
        self,
        request: csi_pb2.ControllerGetVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ControllerGetVolumeResponse:
        """Return one volume.  Its status is required, and empty."""
        text = fields.required("volume_id", request.volume_id)
        info = self._provisioner.get(VolumeId.parse(text))
        kind = csi_pb2.ControllerGetVolumeResponse
        return kind(volume=_volume(info), status=kind.VolumeStatus())

    def ControllerExpandVolume(
        self,
        request: csi_pb2.ControllerExpandVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """Promise a bigger size."""
        text = fields.required("volume_id", request.volume_id)
        wanted = fields.capacity(request, must=True)
        if request.HasField("volume_capability"):
            fields.capability(request.volume_capability)
        expansion = self._provisioner.expand(VolumeId.parse(text), wanted)
        return csi_pb2.ControllerExpandVolumeResponse(
            capacity_bytes=expansion.size.count,
            node_expansion_required=expansion.node_required,
        )

    def ControllerModifyVolume(
        self,
        request: csi_pb2.ControllerModifyVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ControllerModifyVolumeResponse:
        """Change the I/O limits that the request names."""
        text = fields.required("volume_id", request.volume_id)
        mutable = _mutable(request.mutable_parameters)
        if not mutable:
            message = "mutable_parameters is missing"
            raise InvalidRequestError(message)
        self._provisioner.modify(VolumeId.parse(text), mutable)
        return csi_pb2.ControllerModifyVolumeResponse()

    def ControllerGetCapabilities(
        self,
        request: csi_pb2.ControllerGetCapabilitiesRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Say what this service offers, without any I/O."""
        return csi_pb2.ControllerGetCapabilitiesResponse(
            capabilities=[_KIND(rpc=_KIND.RPC(type=each)) for each in CAPABILITIES],
        )

    def _refusal(
        self,
        volume_id: VolumeId,
        request: csi_pb2.ValidateVolumeCapabilitiesRequest,
    ) -> str | None:
        context = fields.mapping("volume_context", request.volume_context)
        parameters = fields.mapping("parameters", request.parameters)
        mutable = _mutable(request.mutable_parameters)
        for given in request.volume_capabilities:
            fields.check_form(given)
        try:
            capabilities = fields.some_capabilities(request.volume_capabilities)
            # Those that ControllerModifyVolume would take, whatever is set now.
            NO_LIMITS.changed_by(mutable)
        except InvalidRequestError as error:
            self._provisioner.get(volume_id)  # NOT_FOUND comes before "no"
            return str(error)
        return self._provisioner.refusal(
            volume_id,
            capabilities,
            context,
            parameters,
        )


def _mutable(given: Mapping[str, str]) -> dict[str, str]:
    return fields.mapping("mutable_parameters", given)


def _refuse_modes(capabilities: Iterable[Capability]) -> None:
    for capability in capabilities:
        reason = capability.refusal()
        if reason is not None:
            raise InvalidRequestError(reason)


def _volume(info: VolumeInfo) -> csi_pb2.Volume:
    return csi_pb2.Volume(
        volume_id=str(info.volume_id),
        capacity_bytes=info.size.count,
        volume_context=info.context,
        content_source=None if info.source is None else _content(info.source),
    )


def _content(source: Source) -> csi_pb2.VolumeContentSource:
    kind = csi_pb2.VolumeContentSource
    if isinstance(source, SnapshotId):
        return kind(snapshot=kind.SnapshotSource(snapshot_id=str(source)))
    return kind(volume=kind.VolumeSource(volume_id=str(source)))
