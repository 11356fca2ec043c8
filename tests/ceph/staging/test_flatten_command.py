# SPDX-License-Identifier: Apache-2.0
"""A stage of a volume that `rbdcrypt-csi volume flatten` is at work on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from csi_driver.images.connections import SharedConnections
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


def test_the_command_lets_a_stage_have_the_volume(
    node: Node,
    create: CreateVolume,
    clones: Clones,
    connections: SharedConnections,
    tmp_path: Path,
) -> None:
    source = create(SIZE, BLOCK_WRITER, {"objectSize": "65536"})
    node.stage(source, BLOCK_WRITER)
    path = node.publish(source, BLOCK_WRITER)
    data = os.urandom(MIB)
    for offset in range(0, SIZE, MIB):
        write_device(path, data, offset)
    node.unpublish(source)
    node.unstage(source)
    clone = clones.make(source)
    file = tmp_path / "secret.json"
    file.write_text(json.dumps(OTHER_SECRETS))
    with (
        connections.pool_at(clone.volume_id.location) as pool,
        pool.open_raw(clone.volume_id.image_id) as image,
    ):
        image.change_setting(SLOW, "1")
    process = begin(file, str(clone.volume_id))
    deadline = time.monotonic() + 60
    while (work := node.record(clone).flatten) is None or not work.done:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    node.stage(clone, BLOCK_WRITER, OTHER_SECRETS)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "a stage took the volume" in errors
    found = node.record(clone)
    assert found.flatten is None
    assert [each.node_id for each in found.exports] == [node.name]
    path = node.publish(clone, BLOCK_WRITER)
    for offset in range(0, SIZE, MIB):
        assert read_device(path, MIB, offset) == data
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
