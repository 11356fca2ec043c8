# SPDX-License-Identifier: Apache-2.0
"""The Node service: proto to domain and back, nothing decided here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import grpc

from csi_driver.domain.access import Capability
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import VolumeId
from csi_driver.rpc import fields
from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.unoffered import UnofferedNode
from csi_driver.staging.requests import ExpandRequest
from csi_driver.staging.requests import PublishRequest
from csi_driver.staging.requests import Stager
from csi_driver.staging.requests import StageRequest
from csi_driver.staging.requests import Usage

_KIND: Final = csi_pb2.NodeServiceCapability

CAPABILITIES: Final = (
    _KIND.RPC.STAGE_UNSTAGE_VOLUME,
    _KIND.RPC.GET_VOLUME_STATS,
    _KIND.RPC.EXPAND_VOLUME,
    _KIND.RPC.SINGLE_NODE_MULTI_WRITER,
)

_UNITS: Final = {
    "bytes": csi_pb2.VolumeUsage.BYTES,
    "inodes": csi_pb2.VolumeUsage.INODES,
}


class Node(UnofferedNode):
    """Calls a Stager.

    Fields are checked before the volume id is decoded: a request with two
    faults is malformed rather than about an unknown volume.
    """

    def __init__(self, stager: Stager, node_id: str) -> None:
        self._stager = stager
        self._node_id = node_id

    def NodeStageVolume(
        self,
        request: csi_pb2.NodeStageVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodeStageVolumeResponse:
        """Make the volume available at the staging path."""
        text = fields.required("volume_id", request.volume_id)
        staging = fields.path("staging_target_path", request.staging_target_path)
        capability = _offered(fields.one_capability(request))
        volume_context = fields.mapping("volume_context", request.volume_context)
        secrets = fields.mapping("secrets", request.secrets)
        self._stager.stage(
            StageRequest(
                volume_id=VolumeId.parse(text),
                staging_path=staging,
                capability=capability,
                context=volume_context,
                secrets=secrets,
            ),
        )
        return csi_pb2.NodeStageVolumeResponse()

    def NodeUnstageVolume(
        self,
        request: csi_pb2.NodeUnstageVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodeUnstageVolumeResponse:
        """Undo NodeStageVolume; what this driver never staged is not staged."""
        text = fields.required("volume_id", request.volume_id)
        staging = fields.path("staging_target_path", request.staging_target_path)
        try:
            volume_id = VolumeId.parse(text)
        except NotFoundError:
            return csi_pb2.NodeUnstageVolumeResponse()
        self._stager.unstage(volume_id, staging)
        return csi_pb2.NodeUnstageVolumeResponse()

    def NodePublishVolume(
        self,
        request: csi_pb2.NodePublishVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Show the staged volume at the target path."""
        text = fields.required("volume_id", request.volume_id)
        target = fields.path("target_path", request.target_path)
        capability = _offered(fields.one_capability(request))
        volume_context = fields.mapping("volume_context", request.volume_context)
        secrets = fields.mapping("secrets", request.secrets)
        if not request.staging_target_path:  # CSI gives this one its own code
            message = "staging_target_path is missing: stage the volume first"
            raise PreconditionError(message)
        staging = fields.path("staging_target_path", request.staging_target_path)
        self._stager.publish(
            PublishRequest(
                volume_id=VolumeId.parse(text),
                staging_path=staging,
                target_path=target,
                capability=capability,
                read_only=request.readonly or capability.mode.read_only,
                context=volume_context,
                secrets=secrets,
            ),
        )
        return csi_pb2.NodePublishVolumeResponse()

    def NodeUnpublishVolume(
        self,
        request: csi_pb2.NodeUnpublishVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Take the target path away."""
        text = fields.required("volume_id", request.volume_id)
        target = fields.path("target_path", request.target_path)
        self._stager.unpublish(VolumeId.parse(text), target)
        return csi_pb2.NodeUnpublishVolumeResponse()

    def NodeGetVolumeStats(
        self,
        request: csi_pb2.NodeGetVolumeStatsRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """Measure the volume at a path."""
        text = fields.required("volume_id", request.volume_id)
        where = fields.plain_path("volume_path", request.volume_path)
        volume_id = VolumeId.parse(text)
        usages = self._stager.stats(volume_id, _on_node(volume_id, where))
        return csi_pb2.NodeGetVolumeStatsResponse(usage=map(_usage, usages))

    def NodeExpandVolume(
        self,
        request: csi_pb2.NodeExpandVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodeExpandVolumeResponse:
        """Grow what is staged to what the controller promised."""
        text = fields.required("volume_id", request.volume_id)
        where = fields.plain_path("volume_path", request.volume_path)
        wanted = fields.capacity(request)
        if request.HasField("volume_capability"):
            fields.capability(request.volume_capability)
        volume_id = VolumeId.parse(text)
        size = self._stager.expand(
            ExpandRequest(volume_id, _on_node(volume_id, where), wanted),
        )
        return csi_pb2.NodeExpandVolumeResponse(capacity_bytes=size.count)

    def NodeGetCapabilities(
        self,
        request: csi_pb2.NodeGetCapabilitiesRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Say what this service offers, without any I/O."""
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[_KIND(rpc=_KIND.RPC(type=each)) for each in CAPABILITIES],
        )

    def NodeGetInfo(
        self,
        request: csi_pb2.NodeGetInfoRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodeGetInfoResponse:
        """Say which node this is; Ceph sets no limit of volumes per node."""
        return csi_pb2.NodeGetInfoResponse(node_id=self._node_id)


def _offered(capability: Capability) -> Capability:
    """Refuse a mode that no volume of this driver has."""
    reason = capability.refusal()
    if reason is not None:
        raise PreconditionError(reason)
    return capability


def _on_node(volume_id: VolumeId, where: Path) -> Path:
    """Refuse a relative path: no volume is there, which CSI wants as NOT_FOUND."""
    if not where.is_absolute():
        message = f"volume {volume_id} is not at {str(where)!r}: no absolute path"
        raise NotFoundError(message)
    return where


def _usage(usage: Usage) -> csi_pb2.VolumeUsage:
    return csi_pb2.VolumeUsage(
        unit=_UNITS[usage.unit],
        total=usage.total,
        used=usage.used,
        available=usage.available,
    )
