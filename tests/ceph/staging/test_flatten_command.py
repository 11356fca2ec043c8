# SPDX-License-Identifier: Apache-2.0
"""A stage of a volume that `rbdcrypt-csi volume flatten` is at work on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from csi_driver.domain.errors import PendingError
from csi_driver.images.connections import SharedConnections
from csi_driver.provisioning.requests import VolumeInfo
from tests.ceph.staging.clones import Clones
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import MIB
from tests.ceph.staging.harness import OTHER_SECRETS
from tests.ceph.staging.harness import SIZE
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node
from tests.ceph.staging.harness import clusters_file
from tests.ceph.staging.harness import read_device
from tests.ceph.staging.harness import write_device

ROOT = Path(__file__).resolve().parents[3]
SLOW = "rbd_concurrent_management_ops"


def begin(file: Path, volume_id: str) -> subprocess.Popen[str]:
    command = [
        # A shell's background job ignores SIGINT, and hands that on.
        *("env", "--default-signal=INT"),
        *(sys.executable, "-m", "csi_driver", "volume", "flatten", volume_id),
        *("--secret-file", str(file), "--clusters-file", str(clusters_file())),
    ]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def slow_clone(
    node: Node,
    create: CreateVolume,
    clones: Clones,
    connections: SharedConnections,
) -> tuple[VolumeInfo, bytes, str]:
    """Return a clone that takes long to flatten, each MiB of it, and its path."""
    source = create(SIZE, BLOCK_WRITER, {"objectSize": "65536"})
    node.stage(source, BLOCK_WRITER)
    path = node.publish(source, BLOCK_WRITER)
    data = os.urandom(MIB)
    for offset in range(0, SIZE, MIB):
        write_device(path, data, offset)
    node.unpublish(source)
    node.unstage(source)
    clone = clones.make(source)
    with (
        connections.pool_at(clone.volume_id.location) as pool,
        pool.open_raw(clone.volume_id.image_id) as image,
    ):
        image.change_setting(SLOW, "1")
        parts = pool.pool_name, pool.location.namespace, image.name
    return clone, data, "/".join(part for part in parts if part)


def secret_file(folder: Path) -> Path:
    """Write the clone's secret where the command may read it."""
    file = folder / "secret.json"
    file.write_text(json.dumps(OTHER_SECRETS))
    return file


def begun(node: Node, clone: VolumeInfo, file: Path) -> subprocess.Popen[str]:
    """Return a command that is in the middle of its flatten."""
    process = begin(file, str(clone.volume_id))
    deadline = time.monotonic() + 60
    while (work := node.record(clone).flatten) is None or not work.done:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def flatten_raw(path: str) -> subprocess.Popen[str]:
    """Begin a raw flatten; librbd hands it to the owner of the image's lock.

    If the owner ended, this client would go on with it, raw.
    """
    return subprocess.Popen(
        ["rbd", "flatten", "--no-progress", path], stderr=subprocess.PIPE, text=True
    )


def require_content(node: Node, clone: VolumeInfo, data: bytes) -> None:
    """Read all of a staged clone."""
    path = node.publish(clone, BLOCK_WRITER)
    for offset in range(0, SIZE, MIB):
        assert read_device(path, MIB, offset) == data


def test_the_command_lets_a_stage_have_the_volume(
    node: Node,
    create: CreateVolume,
    clones: Clones,
    connections: SharedConnections,
    tmp_path: Path,
) -> None:
    clone, data, _ = slow_clone(node, create, clones, connections)
    file = secret_file(tmp_path)
    process = begun(node, clone, file)
    node.stage(clone, BLOCK_WRITER, OTHER_SECRETS)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "a stage took the volume" in errors
    found = node.record(clone)
    assert found.flatten is None
    assert [each.node_id for each in found.exports] == [node.name]
    require_content(node, clone, data)
    # While it is staged the command says where.
    process = begin(file, str(clone.volume_id))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"staged on node {node.name}" in errors
    node.unpublish(clone)
    node.unstage(clone)
    process = begin(file, str(clone.volume_id))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert node.record(clone).ancestors == 0


def test_the_command_stays_while_it_flattens_for_another_client(
    node: Node,
    create: CreateVolume,
    clones: Clones,
    connections: SharedConnections,
    tmp_path: Path,
) -> None:
    clone, data, path = slow_clone(node, create, clones, connections)
    process = begun(node, clone, secret_file(tmp_path))
    foreign = flatten_raw(path)
    time.sleep(1.0)
    # A quick machine is through before a stage gives up waiting.
    with contextlib.suppress(PendingError):
        node.stage(clone, BLOCK_WRITER, OTHER_SECRETS)
        node.unstage(clone)
    _, errors = process.communicate(timeout=90)
    assert "another client asked for" in errors
    _, errors = foreign.communicate(timeout=90)
    assert foreign.returncode == 0, errors
    node.stage(clone, BLOCK_WRITER, OTHER_SECRETS)
    require_content(node, clone, data)
    node.unpublish(clone)
    node.unstage(clone)


def test_signals_do_not_end_the_command_while_it_flattens_for_another_client(
    node: Node,
    create: CreateVolume,
    clones: Clones,
    connections: SharedConnections,
    tmp_path: Path,
) -> None:
    clone, data, path = slow_clone(node, create, clones, connections)
    process = begun(node, clone, secret_file(tmp_path))
    foreign = flatten_raw(path)
    time.sleep(1.5)  # the request is heard
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.3)
    assert foreign.poll() is None, "too fast for this test"
    _, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "another client asked for" in errors
    assert "SIGINT: " in errors
    _, errors = foreign.communicate(timeout=90)
    assert foreign.returncode == 0, errors
    assert node.record(clone).flatten is None
    node.stage(clone, BLOCK_WRITER, OTHER_SECRETS)
    require_content(node, clone, data)
    node.unpublish(clone)
    node.unstage(clone)
