# SPDX-License-Identifier: Apache-2.0
"""The RPCs this driver does not offer, each with a sentence that says so.

None of their capabilities is advertised; a caller that asks anyway gets
UNIMPLEMENTED.
"""

from __future__ import annotations

from typing import NoReturn

import grpc

from csi_driver.rpc.status import NotOfferedError
from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc


def _refuse(method: str, capability: str) -> NoReturn:
    message = f"{method} is not offered: the driver does not advertise {capability}"
    raise NotOfferedError(message)


class UnofferedController(csi_pb2_grpc.ControllerServicer):
    """The part of the Controller service that stays unimplemented."""

    def ControllerPublishVolume(
        self,
        request: csi_pb2.ControllerPublishVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ControllerPublishVolumeResponse:
        """Refuse."""
        _refuse("ControllerPublishVolume", "PUBLISH_UNPUBLISH_VOLUME")

    def ControllerUnpublishVolume(
        self,
        request: csi_pb2.ControllerUnpublishVolumeRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ControllerUnpublishVolumeResponse:
        """Refuse."""
        _refuse("ControllerUnpublishVolume", "PUBLISH_UNPUBLISH_VOLUME")

    def ControllerGetVolumeHealth(
        self,
        request: csi_pb2.ControllerGetVolumeHealthRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ControllerGetVolumeHealthResponse:
        """Refuse."""
        _refuse("ControllerGetVolumeHealth", "GET_VOLUME_HEALTH")

    def ControllerListVolumeHealth(
        self,
        request: csi_pb2.ControllerListVolumeHealthRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ControllerListVolumeHealthResponse:
        """Refuse."""
        _refuse("ControllerListVolumeHealth", "LIST_VOLUME_HEALTH")


class UnofferedNode(csi_pb2_grpc.NodeServicer):
    """The part of the Node service that stays unimplemented."""

    def NodeGetVolumeHealth(
        self,
        request: csi_pb2.NodeGetVolumeHealthRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodeGetVolumeHealthResponse:
        """Refuse."""
        _refuse("NodeGetVolumeHealth", "GET_VOLUME_HEALTH")

    def NodeGetStorageHealth(
        self,
        request: csi_pb2.NodeGetStorageHealthRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.NodeGetStorageHealthResponse:
        """Refuse."""
        _refuse("NodeGetStorageHealth", "GET_STORAGE_HEALTH")
