# SPDX-License-Identifier: Apache-2.0
"""Work that the crash tests run in a child: five calls to a fake Ceph."""

from __future__ import annotations

from pathlib import Path

from csi_driver.images.port import Connector
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_store import FakeStore
from csi_driver.testing.crash import Arguments


def fake_connector() -> Connector:
    return FakeConnector(FakeStore())


def work(connector: Connector, arguments: Arguments) -> None:
    """Leave a trace in a file between the calls, as Ceph would keep one."""
    trace = Path(arguments["trace"])
    ceph = connector.connect("fake")
    pool = ceph.pool("rbd")
    with trace.open("a") as file:
        print("pool", file=file)
    pool.swap_entries("o", expect={}, put={"k": "v"})
    assert pool.read_entry("o", "k") == "v"
    with trace.open("a") as file:
        print("entry", file=file)
    ceph.close()


def fail(connector: Connector, arguments: Arguments) -> None:
    connector.connect(arguments["cluster"])
