# SPDX-License-Identifier: Apache-2.0
"""What tests want to know of a datapath's workers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.unit.datapath.conftest import MakeVolume
    from tests.unit.datapath.conftest import Node


SIZE = 1 << 20


def worker_pid(node: Node, make: MakeVolume) -> int:
    (status,) = node.exports.status(make().volume_id)
    assert status.worker_pid
    return status.worker_pid


def until_dead(node: Node) -> None:
    deadline = time.monotonic() + 5
    while any(status.alive for status in node.exports.status(None)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
