# SPDX-License-Identifier: Apache-2.0
"""A volume's way to a pod and back, on real Ceph with real devices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from csi_driver.devices import mounts
from csi_driver.devices import stats
from csi_driver.domain.access import Capability
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.staging.requests import Usage
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import MIB
from tests.ceph.staging.harness import READER
from tests.ceph.staging.harness import SECRETS
from tests.ceph.staging.harness import SIZE
from tests.ceph.staging.harness import WRITER
from tests.ceph.staging.harness import XFS_SIZE
from tests.ceph.staging.harness import XFS_WRITER
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node
from tests.ceph.staging.harness import read_device
from tests.ceph.staging.harness import write_device


@pytest.mark.parametrize(
    ("size", "capability"),
    [(SIZE, WRITER), (XFS_SIZE, XFS_WRITER)],
    ids=["ext4", "xfs"],
)
def test_data_outlives_unstage(
    node: Node, create: CreateVolume, size: int, capability: Capability
) -> None:
    volume = create(size, capability)
    node.stage(volume, capability)
    target = node.publish(volume, capability)
    (target / "file").write_bytes(b"kept")
    node.unpublish(volume)
    assert not target.exists()
    node.unstage(volume)
    assert node.datapath.status(volume.volume_id) is None
    assert not node.state_file(volume).exists()

    node.stage(volume, capability)
    target = node.publish(volume, capability)
    assert (target / "file").read_bytes() == b"kept"
    node.unpublish(volume)
    node.unstage(volume)


def test_block_volume(node: Node, create: CreateVolume) -> None:
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER)
    assert node.record(volume).filesystem is FilesystemState.RAW
    target = node.publish(volume, BLOCK_WRITER)
    assert stats.device_size(target) == SIZE
    write_device(target, b"raw bytes")
    node.unpublish(volume)
    assert not target.exists()
    node.unstage(volume)

    node.stage(volume, BLOCK_WRITER)
    assert read_device(node.publish(volume, BLOCK_WRITER), 9) == b"raw bytes"
    node.unpublish(volume)
    node.unstage(volume)


def test_plaintext_volume(node: Node, create: CreateVolume) -> None:
    volume = create(parameters={"encrypted": "false"}, secrets={})
    node.stage(volume, secrets={})
    (node.publish(volume) / "file").write_bytes(b"plain")
    node.unpublish(volume)
    node.unstage(volume)
    node.stage(volume, secrets={})
    assert (node.publish(volume) / "file").read_bytes() == b"plain"


def test_every_call_may_be_repeated(node: Node, create: CreateVolume) -> None:
    volume = create()
    for _ in range(2):
        node.stage(volume)
    for _ in range(2):
        node.publish(volume)
    assert len(mounts.at(mounts.read_mounts(), node.target)) == 1
    for _ in range(2):
        node.unpublish(volume)
    for _ in range(2):
        node.unstage(volume)
    assert not mounts.at(mounts.read_mounts(), node.staging)


def test_the_state_holds_no_secret(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.stage(volume)
    text = node.state_file(volume).read_text()
    assert SECRETS["encryptionKey"] not in text
    assert node.state_file(volume).stat().st_mode & 0o077 == 0


def test_staging_differently_is_refused(
    node: Node, create: CreateVolume, tmp_path: Path
) -> None:
    volume = create()
    node.stage(volume)
    other = dataclasses.replace(WRITER, mount_flags=("noatime",))
    with pytest.raises(AlreadyExistsError, match="noatime"):
        node.stage(volume, other)
    node.staging = tmp_path
    with pytest.raises(AlreadyExistsError, match="is staged at"):
        node.stage(volume)
    node.unstage(volume)  # nothing is staged at this path
    status = node.datapath.status(volume.volume_id)
    assert status is not None
    assert status.alive


def test_read_only_stage(node: Node, create: CreateVolume) -> None:
    volume = create()
    with pytest.raises(PreconditionError, match="no filesystem was made"):
        node.stage(volume, READER)
    node.stage(volume)
    (node.staging / "file").write_bytes(b"kept")
    node.unstage(volume)

    node.stage(volume, READER)
    target = node.publish(volume, READER, read_only=True)
    assert (target / "file").read_bytes() == b"kept"
    with pytest.raises(OSError, match="Read-only"):
        (target / "other").write_bytes(b"")
    second = node.publish(volume, READER, target=node.pod("two"), read_only=True)
    assert (second / "file").read_bytes() == b"kept"


def test_read_only_publish(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.stage(volume)
    target = node.publish(volume, read_only=True)
    with pytest.raises(OSError, match="Read-only"):
        (target / "file").write_bytes(b"")
    (node.staging / "file").write_bytes(b"")


def test_mount_flags_reach_stage_and_publish(node: Node, create: CreateVolume) -> None:
    volume = create()
    capability = dataclasses.replace(WRITER, mount_flags=("noatime", "data=ordered"))
    node.stage(volume, capability)
    target = node.publish(volume, capability, read_only=True)
    (staged,) = mounts.at(mounts.read_mounts(), node.staging)
    (published,) = mounts.at(mounts.read_mounts(), target)
    assert {"noatime", "rw"} <= set(staged.options)
    assert "data=ordered" in staged.super_options
    assert {"noatime", "ro"} <= set(published.options)


def test_stats_of_a_filesystem(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.stage(volume)
    target = node.publish(volume)
    (target / "file").write_bytes(bytes(4 * MIB))
    sizes, inodes = node.service.stats(volume.volume_id, target)
    assert sizes.unit == "bytes"
    assert SIZE // 2 < sizes.total <= SIZE
    assert sizes.used >= 4 * MIB
    assert sizes.available <= sizes.total - sizes.used
    assert inodes.unit == "inodes"
    assert inodes.used + inodes.available == inodes.total
    with pytest.raises(NotFoundError, match="is not at"):
        node.service.stats(volume.volume_id, target / "file")


def test_stats_of_a_device(node: Node, create: CreateVolume) -> None:
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER)
    target = node.publish(volume, BLOCK_WRITER)
    assert node.service.stats(volume.volume_id, target) == (Usage("bytes", SIZE),)
    node.unpublish(volume)
    with pytest.raises(NotFoundError, match="is not at"):
        node.service.stats(volume.volume_id, target)
    node.unstage(volume)
    with pytest.raises(NotFoundError, match="not staged"):
        node.service.stats(volume.volume_id, target)
