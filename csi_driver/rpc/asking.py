# SPDX-License-Identifier: Apache-2.0
"""Asking a CSI socket how its process is, as livenessprobe does.

Each question opens the socket anew, as sidecars and kubelet have to: a server
whose socket is gone from its path answers nobody.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import grpc

from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc

_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)
"""No other channel's connection is used again."""


def require_answer(socket_path: Path, seconds: float) -> None:
    """Return if the process answers a Probe, whatever; UnavailableError if not."""
    _probe(socket_path, seconds)


def require_ready(socket_path: Path, seconds: float) -> None:
    """Return if the process says that it is ready.

    PendingError while it starts; PreconditionError with its own words if it cannot
    work here; UnavailableError if it does not answer.
    """
    answer = _probe(socket_path, seconds)
    if isinstance(answer, str):
        raise PreconditionError(answer)
    if not answer:
        raise PendingError("it is still starting")


def _probe(socket_path: Path, seconds: float) -> bool | str:
    """Return whether it is ready, or why it never will be."""
    with grpc.insecure_channel(f"unix:{socket_path}", options=_OPTIONS) as channel:
        stub = csi_pb2_grpc.IdentityStub(channel)
        try:
            answer = stub.Probe(csi_pb2.ProbeRequest(), timeout=seconds)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.FAILED_PRECONDITION:
                return str(error.details())
            message = f"Probe at {socket_path} answers {code.name}: {error.details()}"
            raise UnavailableError(message) from error
    # Without the field the plugin is ready (CSI, ProbeResponse).
    return answer.ready.value if answer.HasField("ready") else True
