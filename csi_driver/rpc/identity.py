# SPDX-License-Identifier: Apache-2.0
"""The Identity service; the same answers from the controller and the nodes."""

from __future__ import annotations

import dataclasses
from typing import Final

import grpc
from google.protobuf.wrappers_pb2 import BoolValue

from csi_driver.rpc.health import Health
from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc

_SERVICES: Final = (csi_pb2.PluginCapability.Service.CONTROLLER_SERVICE,)
_EXPANSIONS: Final = (csi_pb2.PluginCapability.VolumeExpansion.ONLINE,)


@dataclasses.dataclass(frozen=True, slots=True)
class Plugin:
    """The driver's name, as CSIDriver objects and PVs carry it, and its version."""

    name: str
    version: str


class Identity(csi_pb2_grpc.IdentityServicer):
    """Answers without any I/O: sidecars ask with timeouts of a second."""

    def __init__(self, plugin: Plugin, health: Health) -> None:
        self._plugin = plugin
        self._health = health

    def GetPluginInfo(
        self,
        request: csi_pb2.GetPluginInfoRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.GetPluginInfoResponse:
        """Say name and version."""
        return csi_pb2.GetPluginInfoResponse(
            name=self._plugin.name,
            vendor_version=self._plugin.version,
        )

    def GetPluginCapabilities(
        self,
        request: csi_pb2.GetPluginCapabilitiesRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """Say what the plugin as a whole offers."""
        kind = csi_pb2.PluginCapability
        services = [
            kind(service=kind.Service(type=each))  # one message each
            for each in _SERVICES
        ]
        expansions = [
            kind(volume_expansion=kind.VolumeExpansion(type=each))
            for each in _EXPANSIONS
        ]
        return csi_pb2.GetPluginCapabilitiesResponse(
            capabilities=[*services, *expansions],
        )

    def Probe(
        self,
        request: csi_pb2.ProbeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ProbeResponse:
        """Say whether the process is ready; FAILED_PRECONDITION if it cannot be."""
        return csi_pb2.ProbeResponse(ready=BoolValue(value=self._health.ready()))
