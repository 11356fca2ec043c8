# SPDX-License-Identifier: Apache-2.0
"""The driver's processes in the lab: start, stop, restart, what clients need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labtools.places import Lab

PARTS = ("controller", "node", "datapath")


def environment(lab: Lab) -> dict[str, str]:
    """Return what tests and csi-sanity have to know."""
    return {"CEPH_CONF": str(lab.ceph_conf), "CEPH_POOL": "rbd"}


def up(lab: Lab) -> None:
    """Start what does not run."""


def down(lab: Lab) -> None:
    """Stop what runs."""


def restart(lab: Lab, part: str, *, kill: bool) -> None:
    """Replace the processes of one part."""
