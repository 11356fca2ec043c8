# SPDX-License-Identifier: Apache-2.0
"""Target paths: what may stand there, what may not, and what stays untouched."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.devices import mounts
from csi_driver.domain.access import AccessMode
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import VolumeId
from csi_driver.provisioning.requests import VolumeInfo
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import WRITER
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node

SINGLE_MODES = (
    AccessMode.SINGLE_NODE_WRITER,
    AccessMode.SINGLE_NODE_SINGLE_WRITER,
)


@pytest.fixture
def staged(node: Node, create: CreateVolume) -> VolumeInfo:
    """Give a volume that is staged as a block device, which is quick."""
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER)
    return volume


@pytest.fixture
def mounted(node: Node, create: CreateVolume) -> VolumeInfo:
    """Give a volume that is staged as a filesystem."""
    volume = create()
    node.stage(volume)
    return volume


def test_a_file_where_a_directory_belongs(node: Node, mounted: VolumeInfo) -> None:
    node.target.write_bytes(b"theirs")
    with pytest.raises(PreconditionError, match="expected a directory"):
        node.publish(mounted)
    assert node.target.read_bytes() == b"theirs"
    assert str(node.target) not in node.state_file(mounted).read_text()


def test_a_directory_where_a_file_belongs(node: Node, staged: VolumeInfo) -> None:
    node.target.mkdir()
    with pytest.raises(PreconditionError, match="expected a file"):
        node.publish(staged, BLOCK_WRITER)
    assert node.target.is_dir()


def test_a_symbolic_link(node: Node, mounted: VolumeInfo) -> None:
    elsewhere = node.pod("elsewhere")
    elsewhere.mkdir()
    node.target.symlink_to(elsewhere)
    with pytest.raises(PreconditionError, match="symbolic link"):
        node.publish(mounted)
    with pytest.raises(PreconditionError, match="symbolic link"):
        node.unpublish(mounted)
    assert node.target.is_symlink()
    assert not mounts.at(mounts.read_mounts(), elsewhere)


def test_a_target_that_holds_another_mount(node: Node, mounted: VolumeInfo) -> None:
    foreign = node.directory / "datapath"
    node.target.mkdir()
    mounts._bind(foreign, node.target, [])
    with pytest.raises(AlreadyExistsError, match="unmount it first"):
        node.publish(mounted)
    with pytest.raises(PreconditionError, match="left alone"):
        node.unpublish(mounted)
    assert (node.target / "socket").exists()


def test_a_directory_made_here_goes_when_the_publish_fails(
    node: Node, mounted: VolumeInfo
) -> None:
    mounts.unmount(node.staging)
    with pytest.raises(PreconditionError, match="nothing is mounted"):
        node.publish(mounted)
    assert not node.target.exists()


def test_unpublish_keeps_what_others_put_there(node: Node, mounted: VolumeInfo) -> None:
    node.target.mkdir()
    (node.target / "file").write_bytes(b"theirs")
    with pytest.raises(PreconditionError, match="not removed"):
        node.unpublish(mounted)
    assert (node.target / "file").read_bytes() == b"theirs"


@pytest.mark.parametrize("mode", SINGLE_MODES)
def test_a_second_target_of_a_single_one(
    node: Node, create: CreateVolume, mode: AccessMode
) -> None:
    capability = dataclasses.replace(BLOCK_WRITER, mode=mode)
    volume = create(capability=capability)
    node.stage(volume, capability)
    node.publish(volume, capability)
    second = node.pod("two")
    with pytest.raises(PreconditionError, match="one path at a time"):
        node.publish(volume, capability, target=second)
    assert not second.exists()
    node.unpublish(volume)
    node.publish(volume, capability, target=second)


def test_other_arguments_at_the_same_target(node: Node, mounted: VolumeInfo) -> None:
    node.publish(mounted)
    with pytest.raises(AlreadyExistsError, match="other arguments"):
        node.publish(mounted, read_only=True)
    other = dataclasses.replace(WRITER, mount_flags=("nosuid",))
    with pytest.raises(AlreadyExistsError, match="other arguments"):
        node.publish(mounted, other)


def test_two_targets_show_one_filesystem(node: Node, mounted: VolumeInfo) -> None:
    first, second = node.publish(mounted), node.publish(mounted, target=node.pod("two"))
    (first / "file").write_bytes(b"seen")
    assert (second / "file").read_bytes() == b"seen"
    node.unpublish(mounted)
    assert (second / "file").read_bytes() == b"seen"
    node.unstage(mounted)  # also takes away what is left
    assert not mounts.at(mounts.read_mounts(), second)
    node.unpublish(mounted, second)
    assert not second.exists()


def test_a_block_device_is_published_to_a_reader_too(
    node: Node, staged: VolumeInfo
) -> None:
    shown = node.publish(staged, BLOCK_WRITER, read_only=True)
    assert shown.is_block_device()
    node.publish(staged, BLOCK_WRITER, read_only=True)
    with pytest.raises(AlreadyExistsError, match="other arguments"):
        node.publish(staged, BLOCK_WRITER)
    node.unpublish(staged)
    assert not shown.exists()


def test_a_mount_of_a_block_stage(node: Node, staged: VolumeInfo) -> None:
    with pytest.raises(PreconditionError, match="staged as a block device"):
        node.publish(staged, WRITER)


def test_publishing_what_is_not_staged(node: Node, create: CreateVolume) -> None:
    volume = create()
    with pytest.raises(PreconditionError, match="stage it first"):
        node.publish(volume)
    assert not node.target.exists()


def test_a_volume_that_does_not_exist(node: Node, create: CreateVolume) -> None:
    location = create().volume_id.location
    unknown = VolumeInfo(VolumeId(location, "0"), create().size, {"encryption": "none"})
    with pytest.raises(NotFoundError):
        node.stage(unknown)
    with pytest.raises(NotFoundError):
        node.publish(unknown)
    with pytest.raises(NotFoundError):
        node.unpublish(unknown)
    with pytest.raises(NotFoundError):
        node.expand(unknown, 1 << 20)
    with pytest.raises(NotFoundError):
        node.service.stats(unknown.volume_id, node.target)
    node.unstage(unknown)


def test_an_unpublished_target_is_clean(node: Node, create: CreateVolume) -> None:
    volume = create()
    node.unpublish(volume)
    node.target.mkdir()
    node.unpublish(volume)
    assert not node.target.exists()
