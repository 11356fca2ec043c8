# SPDX-License-Identifier: Apache-2.0
"""Growing: live, and at the next stage; the filesystem follows its device."""

from __future__ import annotations

import pytest

from csi_driver.devices import filesystems
from csi_driver.devices import stats
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import MIB
from tests.ceph.staging.harness import READER
from tests.ceph.staging.harness import SIZE
from tests.ceph.staging.harness import XFS_SIZE
from tests.ceph.staging.harness import XFS_WRITER
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node
from tests.ceph.staging.harness import Promise

LARGER = SIZE + 40 * MIB


def filesystem_bytes(node: Node) -> int:
    return stats.filesystem_usage(node.staging).total_bytes


def test_a_block_device_grows_live(
    node: Node, create: CreateVolume, promise: Promise
) -> None:
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER)
    target = node.publish(volume, BLOCK_WRITER)
    promise(volume, LARGER)
    assert node.expand(volume, LARGER) == LARGER
    assert node.expand(volume, 0) == LARGER
    assert stats.device_size(target) == LARGER
    assert node.record(volume).actual.count == LARGER


def test_xfs_grows_live(node: Node, create: CreateVolume, promise: Promise) -> None:
    volume = create(XFS_SIZE, XFS_WRITER)
    node.stage(volume, XFS_WRITER)
    before = filesystem_bytes(node)
    promise(volume, XFS_SIZE + 64 * MIB)
    assert node.expand(volume, 0) == XFS_SIZE + 64 * MIB
    assert filesystem_bytes(node) >= before + 60 * MIB


def test_ext4_grows_live_where_it_may(
    node: Node, create: CreateVolume, promise: Promise
) -> None:
    volume = create()
    node.stage(volume)
    before = filesystem_bytes(node)
    promise(volume, LARGER)
    if filesystems.can_grow_ext4_mounted():
        node.expand(volume, LARGER)
    else:
        with pytest.raises(PreconditionError, match="CAP_SYS_RESOURCE"):
            node.expand(volume, LARGER)
        assert node.record(volume).actual.count == LARGER
        node.unstage(volume)
        node.stage(volume)
    assert filesystem_bytes(node) > before + 30 * MIB


def test_ext4_grows_at_the_next_stage(
    node: Node, create: CreateVolume, promise: Promise
) -> None:
    volume = create()
    node.stage(volume)
    (node.staging / "file").write_bytes(b"kept")
    before = filesystem_bytes(node)
    node.unstage(volume)
    promise(volume, LARGER)
    node.stage(volume)
    assert node.record(volume).actual.count == LARGER
    assert filesystem_bytes(node) > before + 30 * MIB
    assert (node.staging / "file").read_bytes() == b"kept"


def test_beyond_the_promise(node: Node, create: CreateVolume) -> None:
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER)
    with pytest.raises(SizeError, match="through the controller"):
        node.expand(volume, LARGER)
    assert node.record(volume).actual.count == SIZE


def test_what_does_not_grow(node: Node, create: CreateVolume, promise: Promise) -> None:
    volume = create()
    promise(volume, LARGER)
    with pytest.raises(PreconditionError, match="stage it first"):
        node.expand(volume, LARGER)
    node.stage(volume)
    node.unstage(volume)
    promise(volume, LARGER + MIB)
    node.stage(volume, READER)
    with pytest.raises(PreconditionError, match="read-only"):
        node.expand(volume, LARGER + MIB)
