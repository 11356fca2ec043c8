# SPDX-License-Identifier: Apache-2.0
"""What is told on a claim while its volume is flattened."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from csi_driver.rpc.stubs import csi_pb2
from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.daemons import Daemon
from tests.ceph.end_to_end.parts import COMMAND
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.events.claims import Bound
from tests.ceph.events.claims import Claims


def filled(
    world: World, claims: Claims, secret: dict[str, str], size: int
) -> csi_pb2.Volume:
    """Return a volume with that many bytes written."""
    source = claims.new(secret, capability=block(), size=size).volume
    world.first.stage(source, secret, block())
    device = world.first.target(source)
    with device.open("r+b") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
    world.first.unstage(source)
    return source


def test_a_flatten_is_told_from_start_to_end(world: World, claims: Claims) -> None:
    secret = claims.secret()
    source = filled(world, claims, secret, 160 * MIB)
    bound = claims.new(
        secret, source, capability=block(), size=160 * MIB, flattenPolicy="always"
    )
    with Daemon("osd").slow():
        world.first.stage(bound.volume, secret, block())
        bound.await_reason("FlattenStarted")
        eventually("progress", lambda: "FlattenProgress" in bound.reasons, 90)
    bound.await_reason("Flattened", 60)
    world.await_flat(bound.volume)
    assert_story(bound)
    world.first.unstage(bound.volume)


def assert_story(bound: Bound) -> None:
    """See one begin, growing quarters, and one end; all of it went well."""
    assert bound.reasons[0] == "FlattenStarted"
    assert bound.reasons[-1] == "Flattened"
    between = bound.events[1:-1]
    assert {event["reason"] for event in between} == {"FlattenProgress"}
    quarters = [int(event["message"].split()[0]) for event in between]
    assert quarters == sorted(set(quarters))
    assert set(quarters) <= {25, 50, 75}
    assert {event["type"] for event in bound.events} == {"Normal"}
    assert {event["count"] for event in bound.events} == {1}


def test_a_flatten_by_command_is_told_too(
    world: World,
    claims: Claims,
    settings: Mapping[str, str],
    tmp_path: Path,
) -> None:
    secret = claims.secret()
    source = filled(world, claims, secret, 64 * MIB)
    bound = claims.new(secret, source, capability=block())
    file = tmp_path / "secret"
    file.write_text(json.dumps(secret))
    file.chmod(0o600)
    words = [COMMAND, "volume", "flatten", bound.volume.volume_id]
    with Daemon("osd").slow(pause=0.2):
        done = subprocess.run(
            [*words, "--secret-file", str(file)],
            env={**os.environ, **settings},
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert_story(bound)
    # One that has nothing to do is a sentence to its caller, and no news.
    done = subprocess.run(
        [*words, "--secret-file", str(file)],
        env={**os.environ, **settings},
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert_story(bound)
