# SPDX-License-Identifier: Apache-2.0
"""Whose fault it is: the peer's or ours."""

from __future__ import annotations

from csi_driver.domain.errors import InternalError


class PeerProtocolError(Exception):
    """The peer sent what no NBD client may send; the connection is over."""


class LocalProtocolError(InternalError):
    """Our own code used the protocol core against its rules."""
