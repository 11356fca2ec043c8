# SPDX-License-Identifier: Apache-2.0
"""What the protocol core reports.

Offsets and lengths are bytes within the export, which for an encrypted image
means effective bytes.  A cookie is the client's own name for a request and goes
back unchanged with the reply.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Send:
    """Handshake: these bytes go to the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class TransmissionBegins:
    """Handshake: agreed; the next bytes are requests."""


@dataclass(frozen=True, slots=True)
class HandshakeAborted:
    """Handshake: the client wants no export; close when all is sent."""


@dataclass(frozen=True, slots=True)
class Read:
    """A read that is in bounds, aligned, and allowed."""

    cookie: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Write:
    """A write that may be done; `length` bytes of payload follow.

    With `fua` the reply has to wait until the data is durable.
    """

    cookie: int
    offset: int
    length: int
    fua: bool


@dataclass(frozen=True, slots=True)
class WriteZeroes:
    """A range that has to read as zeros afterwards; no payload follows.

    It may be as long as 4 GiB, which no buffer holds.
    """

    cookie: int
    offset: int
    length: int
    fua: bool


@dataclass(frozen=True, slots=True)
class Flush:
    """Every write answered before this must be durable before the reply."""

    cookie: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A request that must be answered with `error` and nothing else."""

    cookie: int
    error: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client leaves: finish what is outstanding, close, send no reply."""


type HandshakeEvent = Send | TransmissionBegins | HandshakeAborted
type TransmissionEvent = Read | Write | WriteZeroes | Flush | Rejected | Disconnect
