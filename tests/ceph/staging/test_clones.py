# SPDX-License-Identifier: Apache-2.0
"""The first stage of a clone: its journal, its size, and whose turn it is."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import pytest

from csi_driver.devices import stats
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.images.port import Pool
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.staging import content
from csi_driver.staging.stages import Stages
from tests.ceph.staging.clones import Clones
from tests.ceph.staging.clones import staged
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import MIB
from tests.ceph.staging.harness import OTHER_SECRETS
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

BLOCK_READER = dataclasses.replace(BLOCK_WRITER, mode=READER.mode)
XFS_READER = dataclasses.replace(READER, filesystem=Filesystem.XFS)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A filesystem, and how it is asked for."""

    size: int
    writer: Capability
    reader: Capability


EXT4 = Kind(SIZE, WRITER, READER)
XFS = Kind(XFS_SIZE, XFS_WRITER, XFS_READER)
each_filesystem = pytest.mark.parametrize("kind", [EXT4, XFS], ids=["ext4", "xfs"])


type CloneBusy = Callable[..., VolumeInfo]


@pytest.fixture
def busy(node: Node, create: CreateVolume, clones: Clones) -> CloneBusy:
    """Clone a volume that is mounted and written to at that moment."""

    def call(kind: Kind, more: int = 0) -> VolumeInfo:
        volume = create(kind.size, kind.writer)
        node.stage(volume, kind.writer)
        (node.staging / "file").write_bytes(b"from the source")
        node.sync()
        clone = clones.make(volume, size=kind.size + more)
        node.unstage(volume)
        return clone

    return call


@each_filesystem
def test_a_clone_reads_its_source_and_is_written_apart(
    node: Node,
    create: CreateVolume,
    clones: Clones,
    kind: Kind,
) -> None:
    volume = create(kind.size, kind.writer)
    node.stage(volume, kind.writer)
    (node.staging / "file").write_bytes(b"from the source")
    node.unstage(volume)
    clone = clones.make(volume)

    assert staged(node, clone, kind.writer) == b"from the source"
    assert node.record(clone).recovered
    (node.staging / "file").write_bytes(b"the clone's own")
    node.unstage(clone)
    node.stage(volume, kind.writer)
    assert (node.staging / "file").read_bytes() == b"from the source"
    node.unstage(volume)
    assert staged(node, clone, kind.reader) == b"the clone's own"


@pytest.mark.parametrize("clone_first", [True, False])
def test_xfs_and_its_clone_side_by_side(
    node: Node, create: CreateVolume, clones: Clones, *, clone_first: bool
) -> None:
    volume = create(XFS_SIZE, XFS_WRITER)
    node.stage(volume, XFS_WRITER)
    (node.staging / "file").write_bytes(b"from the source")
    node.unstage(volume)
    clone = clones.make(volume)
    second = clones.make(volume)
    order = [(volume, SECRETS), (clone, OTHER_SECRETS), (second, OTHER_SECRETS)]
    paths = []
    for each, secrets in reversed(order) if clone_first else order:
        node.staging = node.directory / each.volume_id.image_id
        assert staged(node, each, XFS_WRITER, secrets=secrets) == b"from the source"
        paths.append(node.staging)
    for path in paths:
        (path / "file").write_bytes(path.name.encode())
    assert [(path / "file").read_text() for path in paths] == [
        path.name for path in paths
    ]


@each_filesystem
@pytest.mark.parametrize("more", [0, 48 * MIB])
def test_the_journal_of_a_clone_that_is_only_read(
    node: Node, busy: CloneBusy, kind: Kind, more: int
) -> None:
    clone = busy(kind, more)
    assert staged(node, clone, kind.reader) == b"from the source"
    record = node.record(clone)
    assert record.recovered
    assert record.actual.count == kind.size + more
    status = node.datapath.status(clone.volume_id)
    assert status is not None
    assert status.read_only
    with pytest.raises(OSError, match="Read-only"):
        (node.staging / "file").write_bytes(b"")
    total = stats.filesystem_usage(node.staging).total_bytes
    assert total > (kind.size + more) * 0.7
    node.unstage(clone)
    assert staged(node, clone, kind.reader) == b"from the source"


@each_filesystem
def test_a_journal_that_nobody_replayed(
    node: Node, busy: CloneBusy, kind: Kind
) -> None:
    """What the tests above would see without a first stage of that kind."""
    clone = busy(kind)
    node.change_record(
        clone, lambda record: dataclasses.replace(record, recovered=True)
    )
    with pytest.raises(PreconditionError, match="mounting"):
        node.stage(clone, kind.reader, OTHER_SECRETS)


@each_filesystem
@pytest.mark.parametrize("flags", [(), ("ro",)])
def test_a_larger_clone_is_grown_before_it_is_published(
    node: Node, busy: CloneBusy, kind: Kind, flags: tuple[str, ...]
) -> None:
    clone = busy(kind, 64 * MIB)
    capability = dataclasses.replace(kind.writer, mount_flags=flags)
    assert staged(node, clone, capability) == b"from the source"
    assert node.record(clone).actual.count == kind.size + 64 * MIB
    total = stats.filesystem_usage(node.staging).total_bytes
    assert total > (kind.size + 64 * MIB) * 0.75


@each_filesystem
def test_nodes_take_turns_at_an_unrecovered_clone(
    node: Node,
    other_node: Node,
    busy: CloneBusy,
    monkeypatch: pytest.MonkeyPatch,
    kind: Kind,
) -> None:
    clone = busy(kind)
    begun, go_on = threading.Event(), threading.Event()
    recover = content.recover

    def slowly(pool: Pool, place: content.Place) -> None:
        begun.set()
        assert go_on.wait(30)
        recover(pool, place)

    monkeypatch.setattr(content, "recover", slowly)
    first = threading.Thread(
        target=node.stage, args=(clone, kind.reader, OTHER_SECRETS)
    )
    first.start()
    assert begun.wait(30)
    for capability in (kind.reader, kind.writer, BLOCK_READER):
        with pytest.raises(PendingError, match="for the first time elsewhere"):
            other_node.stage(clone, capability, OTHER_SECRETS)
        assert other_node.datapath.status(clone.volume_id) is None
    go_on.set()
    first.join(60)
    assert (node.staging / "file").read_bytes() == b"from the source"
    assert staged(other_node, clone, kind.reader) == b"from the source"
    node.unstage(clone)
    with pytest.raises(PreconditionError, match="staged read-only on node"):
        node.stage(clone, kind.writer, OTHER_SECRETS)


def test_a_first_stage_at_once_on_two_nodes(
    node: Node, other_node: Node, source: VolumeInfo, clones: Clones
) -> None:
    clone = clones.make(source)
    failures: list[Exception] = []

    def stage(one: Node) -> None:
        try:
            one.stage(clone, READER, OTHER_SECRETS)
        except PendingError as error:
            failures.append(error)

    both = [threading.Thread(target=stage, args=(each,)) for each in (node, other_node)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert len(failures) <= 1
    for each in (node, other_node):
        assert staged(each, clone, READER) == b"from the source"


def test_a_first_stage_that_fails_is_repeated(
    node: Node,
    source: VolumeInfo,
    clones: Clones,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clone = clones.make(source, size=SIZE + 32 * MIB)

    def failing(*_: object) -> None:
        message = "the node is gone"
        raise OSError(message)

    for place in ("recover", "mark_recovered"):
        with monkeypatch.context() as patch:
            patch.setattr(content, place, failing)
            with pytest.raises(OSError, match="is gone"):
                node.stage(clone, READER, OTHER_SECRETS)
        assert not node.record(clone).recovered
        assert node.record(clone).exports == ()
    with monkeypatch.context() as patch:
        patch.setattr(Stages, "_undo", failing)
        patch.setattr(content, "mark_recovered", failing)
        with pytest.raises(OSError, match="is gone"):
            node.stage(clone, READER, OTHER_SECRETS)
    node.restart()
    assert staged(node, clone, READER) == b"from the source"
    assert node.record(clone).recovered


@pytest.mark.parametrize("capability", [BLOCK_WRITER, BLOCK_READER])
def test_a_block_clone_of_a_filesystem_is_untouched(
    node: Node, source: VolumeInfo, clones: Clones, capability: Capability
) -> None:
    clone = clones.make(source, size=SIZE + 32 * MIB)
    node.stage(source, BLOCK_WRITER)
    expected = read_device(node.publish(source, BLOCK_WRITER), SIZE)
    node.unpublish(source)
    node.unstage(source)
    node.stage(clone, capability, OTHER_SECRETS)
    assert node.record(clone).recovered
    target = node.publish(clone, capability)
    assert stats.device_size(target) == SIZE + 32 * MIB
    assert read_device(target, SIZE) == expected


def test_a_clone_of_a_block_volume(
    node: Node, create: CreateVolume, clones: Clones
) -> None:
    volume = create(capability=BLOCK_WRITER)
    node.stage(volume, BLOCK_WRITER)
    write_device(node.publish(volume, BLOCK_WRITER), b"raw", SIZE - 4096)
    node.unpublish(volume)
    node.unstage(volume)
    clone = clones.make(volume, size=SIZE + 32 * MIB)
    with pytest.raises(PreconditionError, match="as a block device"):
        node.stage(clone, READER, OTHER_SECRETS)
    node.stage(clone, BLOCK_READER, OTHER_SECRETS)
    target = node.publish(clone, BLOCK_READER)
    assert read_device(target, 3, SIZE - 4096) == b"raw"
    assert stats.device_size(target) == SIZE + 32 * MIB
