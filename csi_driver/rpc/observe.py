# SPDX-License-Identifier: Apache-2.0
"""The outermost interceptor: one log line and one count for every call.

It also parses the request, so that a malformed one is answered as CSI wants,
and turns every exception into a status.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Callable
from typing import Any
from typing import Final
from typing import NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.protobuf.message import Message

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.rpc.recorder import Recorder
from csi_driver.rpc.redaction import redact
from csi_driver.rpc.scrub import scrub
from csi_driver.rpc.status import Failure
from csi_driver.rpc.status import describe
from csi_driver.rpc.stubs import csi_pb2

type Behavior = Callable[[Message, grpc.ServicerContext], Message]

_CHATTER: Final = frozenset(
    {
        "Probe",
        "GetPluginInfo",
        "GetPluginCapabilities",
        "ControllerGetCapabilities",
        "NodeGetCapabilities",
        "NodeGetInfo",
        "NodeGetVolumeStats",
    },
)
"""RPCs that are called all the time; logged at debug level if they succeed."""

_SUBJECTS: Final = {
    "volume_id": "volume",
    "source_volume_id": "volume",
    "snapshot_id": "snapshot",
}
"""Fields that name what a call is about, and what its log lines call that."""

_log = structlog.get_logger(__name__)


class Observe(grpc.ServerInterceptor):
    """Logs, counts and answers."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

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
        if handler is None or handler.unary_unary is None:
            return handler
        method = method_name(handler_call_details.method)
        behavior: Behavior = handler.unary_unary
        parse = handler.request_deserializer

        def observed(raw: bytes, context: grpc.ServicerContext) -> Message:
            return self._observe(method, raw, context, parse, behavior)

        return grpc.unary_unary_rpc_method_handler(
            observed,
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )

    def _observe(
        self,
        method: str,
        raw: bytes,
        context: grpc.ServicerContext,
        parse: Callable[[bytes], Message] | None,
        behavior: Behavior,
    ) -> Message:
        begin = time.monotonic()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(rpc=method, call=uuid.uuid4().hex[:8])
        request: Message | None = None
        outcome: Message | Failure
        try:
            request = _parsed(raw, parse)
            structlog.contextvars.bind_contextvars(**_subject(request))
            outcome = behavior(request, context)
        except Exception as error:  # noqa: BLE001  # every failure becomes a status
            outcome = describe(error)
            if outcome.incident:
                _log_incident(error, outcome.incident, request)
        seconds = time.monotonic() - begin
        failure = outcome if isinstance(outcome, Failure) else None
        code = "OK" if failure is None else failure.code.name
        _log_call(method, code, seconds, request, failure)
        self._recorder.answered(method, code, seconds)
        structlog.contextvars.clear_contextvars()
        if isinstance(outcome, Failure):
            return _refuse(context, outcome)
        return outcome


def _refuse(context: grpc.ServicerContext, failure: Failure) -> NoReturn:
    context.abort(failure.code, failure.message)


def method_name(path: str) -> str:
    """Return the RPC's bare name from "/csi.v1.Node/NodeStageVolume"."""
    return path.rsplit("/", 1)[-1]


def _parsed(raw: bytes, parse: Callable[[bytes], Message] | None) -> Message:
    if parse is None:
        message = "this RPC takes no request"
        raise InvalidRequestError(message)
    try:
        return parse(raw)
    except DecodeError as error:
        # Also text that is not UTF-8, which proto3 strings have to be.
        message = "the request is no valid protobuf message, or a text is not UTF-8"
        raise InvalidRequestError(message) from error


def _subject(request: Message) -> dict[str, str]:
    """Return what a call is about; by its name if it has no id yet."""
    found = {
        word: value
        for field, word in _SUBJECTS.items()
        if (value := getattr(request, field, ""))
    }
    if name := getattr(request, "name", ""):
        snapshot = isinstance(request, csi_pb2.CreateSnapshotRequest)
        found["snapshot" if snapshot else "volume"] = name
    return found


def _log_call(
    method: str,
    code: str,
    seconds: float,
    request: Message | None,
    failure: Failure | None,
) -> None:
    if failure is not None:
        level = _log.warning
    elif method in _CHATTER:
        level = _log.debug
    else:
        level = _log.info
    level(
        "call",
        code=code,
        seconds=round(seconds, 4),
        request=None if request is None else redact(request),
        **({} if failure is None else {"error": failure.message}),
    )


def _log_incident(
    error: Exception,
    incident: str,
    request: Message | None,
) -> None:
    trace = "".join(traceback.format_exception(error))
    _log.error(
        "unexpected failure",
        incident=incident,
        traceback=trace if request is None else scrub(trace, request),
    )
