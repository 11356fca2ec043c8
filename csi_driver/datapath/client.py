# SPDX-License-Identifier: Apache-2.0
"""The datapath as the rest of the driver calls it."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Final

from csi_driver.datapath import codec
from csi_driver.datapath import wire
from csi_driver.datapath.envelope import VersionError
from csi_driver.datapath.envelope import skew
from csi_driver.datapath.messages import MIN_VERSION
from csi_driver.datapath.messages import VERSION
from csi_driver.datapath.messages import Close
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import ExportStatus
from csi_driver.datapath.messages import Failed
from csi_driver.datapath.messages import Flatten
from csi_driver.datapath.messages import Grow
from csi_driver.datapath.messages import Message
from csi_driver.datapath.messages import Open
from csi_driver.datapath.messages import Opened
from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.messages import Ping
from csi_driver.datapath.messages import Sized
from csi_driver.datapath.messages import Status
from csi_driver.datapath.messages import Statuses
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import SkewError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import EffectiveSize

CONNECT_SECONDS: Final = 5.0

ANSWER_SECONDS: Final = 400.0
"""Longer than the datapath's own bounds, so that its answer comes first."""

STATUS_SECONDS: Final = 30.0


class Datapath:
    """Speaks to the supervisor at a socket; one connection per call.

    Every method raises UnavailableError when the datapath does not run, SkewError
    when it is of a version that does not understand the request, and otherwise the
    datapath's own errors under their own classes.
    """

    def __init__(self, socket_path: Path) -> None:
        """`socket_path` is the supervisor's."""
        self._path = socket_path

    def open(self, volume: OpenVolume) -> OpenedVolume:
        """Open a volume and attach its device, or return it if it is open.

        PendingError while another call works on the volume; InUseError naming
        the node that has it; SecretError, HeaderError; PreconditionError when
        it is open differently.  The secrets stay the caller's to wipe.
        """
        return self._ask(Open(volume), Opened, ANSWER_SECONDS).volume

    def close(self, volume_id: VolumeId) -> None:
        """Detach and close; the worker, and the key, are gone afterwards.

        InUseError while the device is mounted or kept open.  PendingError while
        a flatten is under way that another client asked for; the device is gone
        by then.
        """
        self._ask(Close(volume_id), Done, ANSWER_SECONDS)

    def grow(self, volume_id: VolumeId) -> EffectiveSize:
        """Bring image and device to the record's desired size; return it.

        ExportLostError when the volume is not open here or its worker is dead.
        """
        return self._ask(Grow(volume_id), Sized, ANSWER_SECONDS).size

    def flatten(self, volume_id: VolumeId) -> None:
        """Begin to flatten an open clone, whatever its policy; again is harmless.

        Returns at once; `status` tells how far it is.  PreconditionError if it
        has no parent, is open read-only, or cannot be flattened; ExportLostError
        when it is not open here.
        """
        self._ask(Flatten(volume_id), Done, ANSWER_SECONDS)

    def status(self, volume_id: VolumeId) -> ExportStatus | None:
        """Tell how an open volume is; None if it is not open here."""
        found = self._ask(Status(volume_id), Statuses, STATUS_SECONDS).exports
        return found[0] if found else None

    def list(self) -> tuple[ExportStatus, ...]:
        """Tell how all open volumes are."""
        return self._ask(Status(None), Statuses, STATUS_SECONDS).exports

    def ping(self, seconds: float = CONNECT_SECONDS) -> None:
        """Return if the datapath answers within this time."""
        self._ask(Ping(), Done, seconds)

    def _ask[Answer](
        self, request: Message, wanted: type[Answer], seconds: float
    ) -> Answer:
        """Ask in our version, and if that is refused in the one before."""
        try:
            answer = self._answer(request, VERSION, seconds)
            if _refused(answer) and codec.needed(request) <= MIN_VERSION:
                answer = self._answer(request, MIN_VERSION, seconds)
        except VersionError as error:
            raise skew(node=VERSION, datapath=error.version) from error
        if isinstance(answer, Failed):
            raise _error(answer)
        if not isinstance(answer, wanted):
            raise InternalError(f"the datapath answered {type(answer).__name__}")
        return answer

    def _answer(self, request: Message, version: int, seconds: float) -> Message:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(min(CONNECT_SECONDS, seconds))
            try:
                sock.connect(str(self._path))
            except OSError as error:
                message = (
                    f"the datapath does not answer at {self._path}:"
                    f" {error.strerror or error}"
                )
                raise UnavailableError(message) from error
            wire.send(sock, request, version)
            sock.settimeout(seconds)
            return wire.receive(sock)


_ONE_VERSION: Final = re.compile(
    "version [0-9]+, this process speaks ([0-9]+): restart the older of the two"
)
"""How a datapath refuses that knows only its own version."""


def _refused(answer: Message) -> bool:
    """Whether the datapath did nothing, since it does not know the version."""
    return isinstance(answer, Failed) and isinstance(_error(answer), SkewError)


def _error(answer: Failed) -> DriverError:
    error = answer.to_error()
    told = _ONE_VERSION.search(answer.message)
    if told is None or not isinstance(error, InvalidRequestError):
        return error
    return skew(node=VERSION, datapath=told[1])
