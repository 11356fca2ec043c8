# SPDX-License-Identifier: Apache-2.0
"""One worker without its supervisor: sockets handed over, speed, memory."""

from __future__ import annotations

import secrets
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.datapath.messages import CloseImage
from csi_driver.datapath.messages import Connected
from csi_driver.datapath.messages import Count
from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import OpenImage
from csi_driver.datapath.messages import Predecessor
from csi_driver.datapath.messages import Proceed
from csi_driver.datapath.messages import Serving
from csi_driver.datapath.workers import WORKER
from csi_driver.datapath.workers import Worker
from csi_driver.nbd.librbd_connection import CephClient
from csi_driver.nbd.librbd_image import ImageTarget
from csi_driver.nbd.librbd_image import LibrbdImage
from csi_driver.testing.nbd_client import RawClient

if TYPE_CHECKING:
    from tests.ceph.datapath.running import Volume

BLOCK = 4096
SECONDS = 60.0


@pytest.fixture
def worker(volume: Volume) -> Iterator[Worker]:
    one = Worker(WORKER)
    one.greet()
    yield one
    one.dismiss()
    assert one.wait(30), "a worker ends when its supervisor hangs up"


def opened(worker: Worker, volume: Volume) -> Serving:
    request = OpenImage(volume.request(), Predecessor(), "", 0)
    assert isinstance(worker.ask(request, SECONDS), Connected)
    serving = worker.ask(Proceed(), SECONDS)
    assert isinstance(serving, Serving)
    return serving


def test_a_socket_handed_over_is_served(worker: Worker, volume: Volume) -> None:
    serving = opened(worker, volume)
    ours, theirs = socket.socketpair()
    worker.give_socket(theirs, SECONDS)
    assert theirs.fileno() == -1, "the supervisor keeps no copy"
    content = secrets.token_bytes(BLOCK)
    with RawClient(ours) as client:
        client.write(serving.size.count - BLOCK, content)
        assert client.read(serving.size.count - BLOCK, BLOCK) == content
    counters = worker.ask(Count(), SECONDS)
    assert isinstance(counters, Counters)
    assert (counters.writes, counters.written_bytes) == (1, BLOCK)
    assert worker.ask(CloseImage(), SECONDS) == Done()
    assert worker.wait(10)
    assert worker.end == "ended with status 0"


def test_opening_costs_little_more_than_librbd_itself(volume: Volume) -> None:
    """Compare with a bare connect, open and load in this run; print the ratio.

    The bound here only catches a step that was added by mistake; the goal is
    about twice, and the lab's machine is shared.
    """
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(5):
        worker = Worker(WORKER)
        worker.greet()
        begin = time.monotonic()
        opened(worker, volume)
        ours.append(time.monotonic() - begin)
        assert worker.ask(CloseImage(), SECONDS) == Done()
        worker.dismiss()
        begin = time.monotonic()
        image = _bare(volume)
        bare.append(time.monotonic() - begin)
        image.close()
    ratio = statistics.median(ours) / statistics.median(bare)
    print(  # noqa: T201  # pytest shows it with -rP
        f"open {statistics.median(ours) * 1000:.0f} ms,"
        f" bare {statistics.median(bare) * 1000:.0f} ms, ratio {ratio:.2f}"
    )
    assert ratio < 6


def _bare(volume: Volume) -> LibrbdImage:
    request = volume.request()
    assert request.specs is not None
    return LibrbdImage(
        CephClient(",".join(request.monitors), request.user_id, request.key),
        ImageTarget(pool=request.pool_name, image_id=volume.volume_id.image_id),
        request.specs,
    )


def test_a_worker_stays_small(worker: Worker, volume: Volume) -> None:
    opened(worker, volume)
    status = Path(f"/proc/{worker.pid}/status").read_text()
    (resident,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(resident.split()[1]) < 128 * 1024
