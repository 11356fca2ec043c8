# SPDX-License-Identifier: Apache-2.0
"""The two calls that kubelet makes, and what its verdict means."""

from __future__ import annotations

import dataclasses
from typing import Final

import grpc
import structlog

from csi_driver.rpc.registration.standing import Phase
from csi_driver.rpc.registration.standing import Standing
from csi_driver.rpc.registration.standing import State
from csi_driver.rpc.stubs import pluginregistration_pb2 as pb2
from csi_driver.rpc.stubs import pluginregistration_pb2_grpc as pb2_grpc

TYPE: Final = "CSIPlugin"
VERSIONS: Final = ("1.0.0",)
"""Versions of CSI: kubelet knows 1.x as a whole and nothing beside it."""

_LONGEST_ERROR: Final = 1000

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Driver:
    """Who registers: the driver's name, and its CSI socket as kubelet sees it."""

    name: str
    endpoint: str


class Registration(pb2_grpc.RegistrationServicer):
    """Answers kubelet and notes its verdict."""

    def __init__(self, driver: Driver, standing: Standing) -> None:
        self._driver = driver
        self._standing = standing

    def GetInfo(
        self, request: pb2.InfoRequest, context: grpc.ServicerContext
    ) -> pb2.PluginInfo:
        """Say who this is."""
        _log.info("kubelet asks", name=self._driver.name, phase=self._phase())
        return pb2.PluginInfo(
            type=TYPE,
            name=self._driver.name,
            endpoint=self._driver.endpoint,
            supported_versions=VERSIONS,
        )

    def NotifyRegistrationStatus(
        self, request: pb2.RegistrationStatus, context: grpc.ServicerContext
    ) -> pb2.RegistrationStatusResponse:
        """Take kubelet's verdict."""
        if request.plugin_registered:
            self._standing.set(State(Phase.REGISTERED))
            _log.info("registered with kubelet", name=self._driver.name)
        else:
            reason = self._refusal(request.error)
            self._standing.set(State(Phase.REFUSED, reason))
            _log.error("not registered", reason=reason)
        return pb2.RegistrationStatusResponse()

    def _phase(self) -> str:
        return self._standing.state.phase.name.lower()

    def _refusal(self, error: str) -> str:
        found = " ".join(error.split())[:_LONGEST_ERROR] or "it gave no reason"
        return (
            f"kubelet does not register {self._driver.name!r}: {found}; it must reach"
            f" the CSI socket at {self._driver.endpoint} (kubelet_endpoint), and no"
            " other driver of this name may run on the node; this is tried again"
        )
