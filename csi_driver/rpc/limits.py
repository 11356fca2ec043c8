# SPDX-License-Identifier: Apache-2.0
"""The inner interceptor: one call per volume or snapshot, none waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Final

import grpc
from google.protobuf.message import Message

from csi_driver.rpc.inflight import InFlight
from csi_driver.rpc.observe import Behavior
from csi_driver.rpc.observe import method_name
from csi_driver.rpc.workers import Patience
from csi_driver.rpc.workers import Workers

LONGEST_CALL: Final = 115.0
"""Seconds a call may take when its caller sets no deadline.  The most patient
caller, kubelet, waits for 120."""

MARGIN: Final = 0.25
"""Seconds before the caller's deadline at which a call gives up, so that the
caller still gets a sentence instead of its own timeout."""

_GUARDED: Final = {
    "CreateVolume": ("name",),
    "DeleteVolume": ("volume_id",),
    "CreateSnapshot": ("source_volume_id", "name"),
    "DeleteSnapshot": ("snapshot_id",),
    "ControllerExpandVolume": ("volume_id",),
    "ControllerModifyVolume": ("volume_id",),
    "NodeStageVolume": ("volume_id",),
    "NodeUnstageVolume": ("volume_id",),
    "NodePublishVolume": ("volume_id",),
    "NodeUnpublishVolume": ("volume_id",),
    "NodeExpandVolume": ("volume_id",),
}
"""RPCs that change a volume or a snapshot, and the fields that say which.  The
others only read: they neither wait for a change nor hold one up."""

_DIRECT: Final = frozenset(
    {
        "Probe",
        "GetPluginInfo",
        "GetPluginCapabilities",
        "ControllerGetCapabilities",
        "NodeGetCapabilities",
        "NodeGetInfo",
    },
)
"""RPCs without any I/O, answered even when all the work is stuck."""


class Limits(grpc.ServerInterceptor):
    """Guards volumes and snapshots, and honours deadlines."""

    def __init__(
        self,
        workers: Workers,
        in_flight: InFlight,
        longest_call: float = LONGEST_CALL,
    ) -> None:
        self._workers = workers
        self._in_flight = in_flight
        self._longest_call = longest_call

    def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails],
            grpc.RpcMethodHandler[Any, Any] | None,
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one call."""
        handler = continuation(handler_call_details)
        method = method_name(handler_call_details.method)
        if handler is None or handler.unary_unary is None or method in _DIRECT:
            return handler
        behavior: Behavior = handler.unary_unary

        def limited(request: Message, context: grpc.ServicerContext) -> Message:
            return self._limited(method, request, context, behavior)

        return grpc.unary_unary_rpc_method_handler(
            limited,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _limited(
        self,
        method: str,
        request: Message,
        context: grpc.ServicerContext,
        behavior: Behavior,
    ) -> Message:
        key = _key(method, request)
        if key:
            self._in_flight.enter(key, method)

        def ended() -> None:
            if key:
                self._in_flight.leave(key)

        patience = Patience(self._span(context))
        if not context.add_callback(patience.caller_left):
            patience.caller_left()
        return self._workers.run(
            method,
            lambda: behavior(request, context),
            patience=patience,
            ended=ended,
        )

    def _span(self, context: grpc.ServicerContext) -> float:
        # Without a deadline the remaining time is endless, not None.
        left = context.time_remaining() - MARGIN
        return max(0.0, min(left, self._longest_call))


def _key(method: str, request: Message) -> str:
    """Return what a call claims, "" for nothing: a field is missing, too."""
    values = {field: str(getattr(request, field)) for field in _GUARDED.get(method, ())}
    if not all(values.values()):
        return ""
    return ", ".join(f"{field} {value!r}" for field, value in values.items())
