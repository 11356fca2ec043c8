# SPDX-License-Identifier: Apache-2.0
"""A gRPC server with the CSI services on one unix socket."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
from pathlib import Path
from typing import Final

import grpc
import structlog

from csi_driver.datapath import ending
from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc import endpoint
from csi_driver.rpc.inflight import InFlight
from csi_driver.rpc.limits import LONGEST_CALL
from csi_driver.rpc.limits import Limits
from csi_driver.rpc.observe import Observe
from csi_driver.rpc.recorder import NoRecorder
from csi_driver.rpc.recorder import Recorder
from csi_driver.rpc.stubs import csi_pb2_grpc
from csi_driver.rpc.workers import Workers

_THREADS: Final = 256
"""Calls that are waited for at the same time.  They are made when needed; the
provisioner alone may have 100 calls waiting, and Probe has to find a thread."""

GRACE: Final = 20.0
"""Seconds for calls under way when the server stops; kubelet kills after 30."""

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Services:
    """What one process serves."""

    identity: csi_pb2_grpc.IdentityServicer
    controller: csi_pb2_grpc.ControllerServicer | None = None
    node: csi_pb2_grpc.NodeServicer | None = None


class CsiServer:
    """The server of one process."""

    def __init__(
        self,
        path: Path,
        services: Services,
        *,
        recorder: Recorder | None = None,
        workers: Workers | None = None,
        longest_call: float = LONGEST_CALL,
    ) -> None:
        recorder = recorder or NoRecorder()
        self._path = path
        self._in_flight = InFlight()
        self._workers = workers or Workers(recorder=recorder)
        limits = Limits(self._workers, self._in_flight, longest_call)
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(_THREADS, "rpc"),
            interceptors=[Observe(recorder), limits],
        )
        csi_pb2_grpc.add_IdentityServicer_to_server(services.identity, self._server)
        if services.controller is not None:
            csi_pb2_grpc.add_ControllerServicer_to_server(
                services.controller,
                self._server,
            )
        if services.node is not None:
            csi_pb2_grpc.add_NodeServicer_to_server(services.node, self._server)

    @property
    def in_flight(self) -> InFlight:
        """The volumes and snapshots at which somebody is at work."""
        return self._in_flight

    def start(self) -> None:
        """Listen; UnavailableError if the socket cannot be had."""
        endpoint.clear(self._path)
        with endpoint.private_sockets():
            try:
                self._server.add_insecure_port(f"unix:{self._path}")
            except RuntimeError as error:
                message = f"listening on {self._path} failed"
                raise UnavailableError(message) from error
            self._server.start()
        _log.info("serving", socket=str(self._path))

    def stop(self, grace: float = GRACE) -> bool:
        """Refuse new calls, wait for those under way; True if all work ended."""
        self._server.stop(grace).wait()
        self._path.unlink(missing_ok=True)
        left = sorted(self._in_flight.keys())
        running = self._workers.running
        if running:
            _log.warning("stopped with work under way", running=running, volumes=left)
        return not running


def serve_until_told(
    server: CsiServer,
    grace: float = GRACE,
    *,
    beside: contextlib.AbstractContextManager[None] | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT; True if all work ended before the grace.

    `beside` is entered once the socket is served, and left before it stops.
    """
    with ending.told_to_end() as told:
        server.start()
        with beside or contextlib.nullcontext():
            ending.wait_until(told)
            _log.info("stopping", grace=grace)
        return server.stop(grace)
