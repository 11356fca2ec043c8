# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of a running controller, and that it tidies up alone."""

from __future__ import annotations

import socket
import time
import urllib.request

import grpc

from csi_driver.domain.errors import NotFoundError
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.world import World

SECRETS = {"encryptionPassphrase": "seen by nobody but its volume"}


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_metrics_count_every_call_by_its_code(world: World) -> None:
    address = free_address()
    part = world.controller_part
    part._env["RBDCRYPT_HTTP_ADDRESS"] = address
    part.restart()
    name = world.new_name()
    world.remember(world.controller.create(name, SECRETS))
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        world.controller.create(name, SECRETS, size=1 << 30)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    calls = [line for line in lines if "CreateVolume" in line and "_total" in line]
    assert any('code="OK"' in line and line.endswith(" 1.0") for line in calls), lines
    assert any('code="ALREADY_EXISTS"' in line for line in calls), calls
    assert SECRETS["encryptionPassphrase"] not in "\n".join(lines)
    del part._env["RBDCRYPT_HTTP_ADDRESS"]


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
