# SPDX-License-Identifier: Apache-2.0
"""What kubelet, Prometheus and an operator see of the running processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from csi_driver.domain.errors import NotFoundError
from csi_driver.testing.kubelet import Kubelet
from csi_driver.testing.kubelet import eventually
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.parts import Part
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import sync

SECRETS = {"encryptionPassphrase": "seen by nobody but its volume"}
NAME = "csi.rbdcrypt.io"


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def watched(part: Part, **settings: str) -> Iterator[str]:
    """Restart a part with an HTTP address, and other settings; yields the address."""
    address = free_address()
    given = {"RBDCRYPT_HTTP_ADDRESS": address, **settings}
    part._env |= given
    part.restart()
    try:
        yield address
    finally:
        for name in given:
            del part._env[name]
        part.restart()


def read(address: str, path: str) -> tuple[int, list[str]]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode().splitlines()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().splitlines()


def is_ready(address: str) -> bool:
    return read(address, "/readyz")[0] == 200


def metric(address: str, start: str) -> float:
    """Return the value of the one metric that begins so."""
    lines = read(address, "/metrics")[1]
    (found,) = [line for line in lines if line.startswith(start)]
    return float(found.rpartition(" ")[2])


def test_a_controller_counts_every_call_by_its_code(world: World) -> None:
    with watched(world.controller_part) as address:
        eventually("ready", lambda: is_ready(address))
        assert read(address, "/healthz") == (200, ["ok probe"])
        name = world.new_name()
        world.remember(world.controller.create(name, SECRETS))
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            world.controller.create(name, SECRETS, size=1 << 30)
        lines = read(address, "/metrics")[1]
    calls = [line for line in lines if "CreateVolume" in line and "_total" in line]
    assert any('code="OK"' in line and line.endswith(" 1.0") for line in calls), lines
    assert any('code="ALREADY_EXISTS"' in line for line in calls), calls
    assert any(line.startswith("rbdcrypt_build_info{version=") for line in lines)
    assert SECRETS["encryptionPassphrase"] not in "\n".join(lines)


@pytest.fixture
def registry() -> Iterator[Path]:
    """Give kubelet's plugins_registry."""
    with tempfile.TemporaryDirectory(prefix="plugins-") as directory:
        yield Path(directory)


def test_a_node_registers_with_kubelet_and_is_ready_with_its_datapath(
    world: World, registry: Path
) -> None:
    part = world.first.service
    place = registry / f"{NAME}-reg.sock"
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(
            watched(part, RBDCRYPT_REGISTRATION_SOCKET=str(place))
        )
        eventually("alive", lambda: read(address, "/healthz")[0] == 200)
        status, lines = read(address, "/readyz")
        assert status == 503
        assert lines[1] == "ok datapath"
        assert lines[2].startswith("failed registration: kubelet has not registered")
        with Kubelet(registry).running() as kubelet:
            eventually("registered", lambda: is_ready(address))
            assert kubelet.node_ids == {NAME: world.first.node_id}
            assert metric(address, "rbdcrypt_kubelet_registered") == 1
            world.first.datapath.stop()
            status, lines = read(address, "/readyz")
            assert status == 503
            assert lines[1].startswith("failed datapath: ")
            assert read(address, "/healthz")[0] == 200
            world.first.datapath.start()
            eventually("ready again", lambda: is_ready(address))
            part.restart()
            eventually("registered again", lambda: is_ready(address))
            stack.close()
            eventually("forgotten", lambda: kubelet.drivers == [])
    assert list(registry.iterdir()) == []


def test_a_datapath_tells_of_its_volumes(world: World) -> None:
    with watched(world.first.datapath) as address:
        volume = world.create(SECRETS)
        target = world.first.stage(volume, SECRETS)
        assert read(address, "/healthz") == (200, ["ok datapath"])
        assert read(address, "/readyz") == (200, ["ok datapath"])
        of = f'volume="{volume.volume_id}"'

        def written() -> float:
            start = f'rbdcrypt_export_bytes_total{{operation="write",{of}}}'
            return metric(address, start)

        before = written()
        (target / "file").write_bytes(b"x" * (1 << 20))
        sync(target)
        eventually("counted", lambda: written() >= before + (1 << 20))
        assert metric(address, f"rbdcrypt_export_alive{{{of}}}") == 1
        assert metric(address, f"rbdcrypt_export_errors_total{{{of}}}") == 0
        size = metric(address, f"rbdcrypt_export_size_bytes{{{of}}}")
        assert size == volume.capacity_bytes
        os.kill(world.first.worker_pid(volume), signal.SIGKILL)
        alive = f"rbdcrypt_export_alive{{{of}}}"
        eventually("told", lambda: metric(address, alive) == 0)
        assert SECRETS["encryptionPassphrase"] not in str(read(address, "/metrics"))
        world.first.unstage(volume)
        eventually("closed", lambda: of not in str(read(address, "/metrics")))


def test_the_collector_runs_within_seconds(world: World) -> None:
    volume = world.create(SECRETS)
    world.record(volume)
    world.forget(volume)
    world.controller.delete(volume)
    deadline = time.monotonic() + 10
    while True:
        try:
            world.record(volume)
        except NotFoundError:
            return
        assert time.monotonic() < deadline, "the image is still there"
        time.sleep(0.1)
