# SPDX-License-Identifier: Apache-2.0
"""Whatever dies or restarts between two calls, the next one copes with it."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from csi_driver.devices import mounts
from csi_driver.domain.access import Capability
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.provisioning.requests import VolumeInfo
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import SECRETS
from tests.ceph.staging.harness import WRITER
from tests.ceph.staging.harness import XFS_SIZE
from tests.ceph.staging.harness import XFS_WRITER
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node
from tests.ceph.staging.harness import read_device
from tests.ceph.staging.harness import write_device


def mounted_at(path: Path) -> bool:
    return bool(mounts.at(mounts.read_mounts(), path))


def test_a_restart_of_the_service_between_all_calls(
    node: Node, create: CreateVolume
) -> None:
    volume = create()
    node.stage(volume)
    node.restart()
    node.stage(volume)
    target = node.publish(volume)
    node.restart()
    node.publish(volume)
    assert len(node.service.stats(volume.volume_id, target)) == 2
    node.restart()
    node.unpublish(volume)
    node.restart()
    node.unstage(volume)
    assert node.datapath.status(volume.volume_id) is None
    assert not mounted_at(node.staging)


def alter_state(node: Node, volume: VolumeInfo, **fields: object) -> None:
    path = node.state_file(volume)
    content = json.loads(path.read_text())
    content["state"].update(fields)
    path.write_text(json.dumps(content))


def test_a_state_of_an_earlier_boot(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.stage(volume)
    node.publish(volume)
    left = node.state_file(volume).read_bytes()
    node.unstage(volume)  # what a reboot would have done

    node.state_file(volume).write_bytes(left)
    alter_state(node, volume, boot_id="an earlier one")
    with pytest.raises(NotFoundError, match="not staged"):
        node.service.stats(volume.volume_id, node.target)
    with pytest.raises(PreconditionError, match="stage it first"):
        node.publish(volume)
    node.unpublish(volume)
    assert not node.target.exists()
    node.unstage(volume)
    assert not node.state_file(volume).exists()

    node.state_file(volume).write_bytes(left)
    alter_state(node, volume, boot_id="an earlier one")
    node.stage(volume)
    assert mounted_at(node.staging)


def test_a_stage_that_was_cut_short(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.stage(volume)
    alter_state(node, volume, device=None, filesystem=None)
    with pytest.raises(PreconditionError, match="stage it first"):
        node.publish(volume)
    node.stage(volume)
    node.publish(volume)
    node.unpublish(volume)
    alter_state(node, volume, device=None, filesystem=None)
    node.unstage(volume)
    assert not mounted_at(node.staging)
    assert node.datapath.status(volume.volume_id) is None


def test_a_lost_state(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.stage(volume)
    node.publish(volume)
    node.state_file(volume).unlink()
    node.unpublish(volume)
    assert not node.target.exists()
    node.unstage(volume)
    assert not mounted_at(node.staging)
    assert node.datapath.status(volume.volume_id) is None


def test_a_damaged_state(node: Node, create: CreateVolume) -> None:
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER)
    path = node.state_file(volume)
    good = path.read_bytes()
    unknown = re.sub(rb'"version": \d+', b'"version": 99', good)
    for bad in (b"", b"{}", b"[1]", unknown):
        path.write_bytes(bad)
        with pytest.raises(PreconditionError, match="cannot be read"):
            node.unstage(volume)
    path.write_bytes(good)
    node.unstage(volume)


@pytest.mark.parametrize("capability", [WRITER, BLOCK_WRITER], ids=["ext4", "block"])
def test_a_dead_worker_and_no_secrets(
    node: Node, create: CreateVolume, capability: Capability
) -> None:
    volume = create(capability=capability)
    node.stage(volume, capability)
    node.publish(volume, capability)
    node.kill_worker(volume)
    with pytest.raises(ExportLostError, match="delete the pod"):
        node.publish(volume, capability)
    with pytest.raises(ExportLostError):
        node.expand(volume, 0)
    node.unpublish(volume)
    node.unstage(volume)
    assert not mounted_at(node.staging)
    assert node.datapath.status(volume.volume_id) is None
    node.stage(volume, capability)


def test_a_dead_worker_and_a_publish_with_secrets(
    node: Node, create: CreateVolume
) -> None:
    volume = create()
    node.stage(volume)
    (node.publish(volume) / "file").write_bytes(b"kept")
    node.unpublish(volume)
    mounts_before = len(mounts.read_mounts())
    node.sync()
    node.kill_worker(volume)
    target = node.publish(volume, secrets=SECRETS)
    assert (target / "file").read_bytes() == b"kept"
    assert len(mounts.read_mounts()) == mounts_before + 1


def test_a_dead_worker_under_a_published_filesystem(
    node: Node, create: CreateVolume
) -> None:
    volume = create(XFS_SIZE, XFS_WRITER)
    node.stage(volume, XFS_WRITER)
    target = node.publish(volume, XFS_WRITER)
    (target / "file").write_bytes(b"kept")
    node.sync()
    node.kill_worker(volume)
    # Nothing can take a loop device away from a process that has it open.
    with (
        (target / "file").open("rb"),
        pytest.raises(InUseError, match="a process has a file open"),
    ):
        node.publish(volume, XFS_WRITER, secrets=SECRETS)
    target = node.publish(volume, XFS_WRITER, secrets=SECRETS)
    assert (target / "file").read_bytes() == b"kept"
    (target / "file").write_bytes(b"again")


def test_a_stage_after_a_dead_worker(node: Node, create: CreateVolume) -> None:
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER)
    write_device(node.publish(volume, BLOCK_WRITER), b"kept")
    node.unpublish(volume)
    node.kill_worker(volume)
    node.stage(volume, BLOCK_WRITER)
    assert read_device(node.publish(volume, BLOCK_WRITER), 4) == b"kept"


def test_a_dead_datapath(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.stage(volume)
    node.publish(volume)
    node.stop_datapath(signal.SIGKILL)
    with pytest.raises(UnavailableError, match="does not answer"):
        node.publish(volume)
    node.start_datapath()
    with pytest.raises(ExportLostError, match="delete the pod"):
        node.publish(volume)
    node.unpublish(volume)
    node.unstage(volume)
    assert not mounted_at(node.staging)
    node.stage(volume)


def test_a_failed_stage_is_undone(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.staging.rmdir()
    node.staging.write_bytes(b"in the way")
    with pytest.raises(PreconditionError, match="expected a directory"):
        node.stage(volume)
    assert node.datapath.status(volume.volume_id) is None
    assert not node.state_file(volume).exists()
    node.staging.unlink()
    node.staging.mkdir()
    node.stage(volume)
