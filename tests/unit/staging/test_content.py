# SPDX-License-Identifier: Apache-2.0
"""When a filesystem is made, and what the record says at every moment of it.

The tools are replaced by a record of their calls; `tests/ceph` runs them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from csi_driver.devices import filesystems
from csi_driver.devices import mounts
from csi_driver.devices.filesystems import Signature
from csi_driver.devices.mounts import MountOptions
from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.record import Record
from csi_driver.images.connections import SharedConnections
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.staging import content

WRITER = Capability(AccessMode.SINGLE_NODE_WRITER)
XFS = dataclasses.replace(WRITER, filesystem=Filesystem.XFS)
BLOCK = Capability(AccessMode.SINGLE_NODE_WRITER, block=True)


class Tools:
    """Stands in for mkfs, e2fsck and mount; `calls` says what was run when.

    Each call is noted with the filesystem state that the record had then.
    """

    def __init__(self, state: Callable[[], FilesystemState]) -> None:
        self.calls: list[tuple[str, str]] = []
        self.found: Signature | None = None
        self.failing = ""
        self.made: tuple[str, str, bool] | None = None
        self.options = MountOptions()
        self._state = state

    def _note(self, name: str) -> None:
        self.calls.append((name, self._state().value))
        if name == self.failing:
            message = f"{name} failed"
            raise PreconditionError(message)

    def probe(self, device: Path) -> Signature | None:
        self._note("probe")
        return self.found

    def make(
        self, device: Path, filesystem: str, options: str = "", *, overwrite: bool
    ) -> None:
        self._note("make")
        self.made = (filesystem, options, overwrite)

    def check(self, device: Path, filesystem: str) -> None:
        self._note("check")

    def grow_unmounted(self, device: Path, filesystem: str) -> bool:
        self._note("grow unmounted")
        return True

    def grow_mounted(self, device: Path, filesystem: str, path: Path) -> bool:
        self._note("grow mounted")
        return True

    def mount_device(
        self, device: Path, path: Path, filesystem: str, options: MountOptions
    ) -> None:
        self._note("mount")
        self.options = options

    def unmount(self, path: Path) -> None:
        self._note("unmount")


class World:
    """One volume, its record and the tools."""

    def __init__(self, connections: SharedConnections, volume: VolumeInfo) -> None:
        self._connections = connections
        self._volume = volume
        self.tools = Tools(lambda: self.record().filesystem)

    def record(self) -> Record:
        with self._connections.pool_at(self._volume.volume_id.location) as pool:
            return read_record(pool, self._volume.volume_id.image_id)

    def set_state(self, state: FilesystemState, *, recovered: bool = True) -> None:
        with self._connections.pool_at(self._volume.volume_id.location) as pool:
            change_record(
                pool,
                self._volume.volume_id.image_id,
                lambda record: dataclasses.replace(
                    record, filesystem=state, recovered=recovered
                ),
            )

    def settle(
        self, capability: Capability = WRITER, *, read_only: bool = False
    ) -> Filesystem | None:
        place = self._place(capability, read_only=read_only)
        with self._connections.pool_at(self._volume.volume_id.location) as pool:
            return content.settle(pool, place)

    def recover(self, capability: Capability) -> None:
        place = self._place(capability, read_only=False)
        with self._connections.pool_at(self._volume.volume_id.location) as pool:
            content.recover(pool, place)

    def _place(self, capability: Capability, *, read_only: bool) -> content.Place:
        return content.Place(
            self._volume.volume_id.image_id,
            Path("/dev/null"),
            Path("/staging"),
            capability,
            read_only,
        )

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.tools.calls]


@pytest.fixture
def world(
    create: Callable[..., VolumeInfo],
    connections: SharedConnections,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    volume = create(
        secrets={},
        parameters={"encrypted": "false", "mkfsOptions": "-N 64"},
    )
    made = World(connections, volume)
    for name in ("probe", "make", "check", "grow_unmounted", "grow_mounted"):
        monkeypatch.setattr(filesystems, name, getattr(made.tools, name))
    monkeypatch.setattr(mounts, "mount_device", made.tools.mount_device)
    monkeypatch.setattr(mounts, "unmount", made.tools.unmount)
    return made


@pytest.mark.parametrize(("capability", "filesystem"), [(WRITER, "ext4"), (XFS, "xfs")])
def test_a_fresh_volume_gets_a_filesystem(
    world: World, capability: Capability, filesystem: str
) -> None:
    found = world.settle(capability)
    assert found is not None
    assert found.value == filesystem
    assert world.tools.calls == [
        ("probe", "none"),
        ("make", "making"),
        ("mount", filesystem),
        ("grow mounted", filesystem),
    ]
    assert world.tools.made == (filesystem, "-N 64", False)


@pytest.mark.parametrize("failing", ["make", "mount"])
def test_a_crash_in_between_is_made_good(world: World, failing: str) -> None:
    world.tools.failing = failing
    with pytest.raises(PreconditionError, match="failed"):
        world.settle()
    after = world.record().filesystem
    expected = {"make": FilesystemState.MAKING, "mount": FilesystemState.EXT4}
    assert after is expected[failing]
    world.tools.calls.clear()
    world.tools.failing = ""
    world.tools.found = Signature("ext4", None, None)
    world.settle()
    assert ("make" in world.names) is (failing == "make")
    assert world.record().filesystem is FilesystemState.EXT4


def test_an_interrupted_mkfs_is_not_probed(world: World) -> None:
    world.set_state(FilesystemState.MAKING)
    world.settle(XFS)
    assert world.names == ["make", "mount", "grow mounted"]
    assert world.tools.made == ("xfs", "-N 64", True)


@pytest.mark.parametrize(
    "found",
    [
        Signature("ext4", None, None),
        Signature("crypto_LUKS", None, None),
        Signature(None, "gpt", None),
        Signature("vfat", "dos", None),
    ],
)
def test_a_signature_forbids_mkfs(world: World, found: Signature) -> None:
    world.tools.found = found
    with pytest.raises(PreconditionError, match="nothing was overwritten") as caught:
        world.settle()
    assert "'volume'" in str(caught.value)
    assert world.names == ["probe"]
    assert world.record().filesystem is FilesystemState.NONE


def test_an_unclear_probe_forbids_mkfs(world: World) -> None:
    world.tools.failing = "probe"
    with pytest.raises(PreconditionError):
        world.settle()
    assert world.record().filesystem is FilesystemState.NONE


def test_a_made_filesystem_is_checked_grown_and_mounted(world: World) -> None:
    world.set_state(FilesystemState.EXT4)
    world.tools.found = Signature("ext4", None, None)
    world.settle()
    assert world.names == ["probe", "check", "grow unmounted", "mount", "grow mounted"]


def test_a_reader_changes_nothing(world: World) -> None:
    world.set_state(FilesystemState.EXT4)
    world.tools.found = Signature("ext4", None, None)
    flags = dataclasses.replace(WRITER, mount_flags=("noatime",))
    world.settle(flags, read_only=True)
    assert world.names == ["probe", "mount"]
    assert world.tools.options == MountOptions(
        ("noatime",), read_only=True, no_uuid=True
    )


@pytest.mark.parametrize("state", [FilesystemState.XFS, FilesystemState.FOREIGN])
def test_a_filesystem_may_share_its_uuid(world: World, state: FilesystemState) -> None:
    world.set_state(state)
    world.tools.found = Signature("xfs", None, None)
    world.settle(dataclasses.replace(WRITER, filesystem=None))
    assert world.tools.options.no_uuid


@pytest.mark.parametrize("capability", [WRITER, BLOCK])
def test_a_writable_first_stage_recovers_a_clone(
    world: World, capability: Capability
) -> None:
    world.set_state(FilesystemState.EXT4, recovered=False)
    world.tools.found = Signature("ext4", None, None)
    world.tools.failing = "check"
    if not capability.block:
        with pytest.raises(PreconditionError, match="check failed"):
            world.settle(capability)
        assert not world.record().recovered
    world.tools.failing = ""
    world.settle(capability)
    assert world.record().recovered


@pytest.mark.parametrize(
    ("state", "capability", "expected"),
    [
        (FilesystemState.EXT4, WRITER, ["probe", "check", "grow unmounted"]),
        (
            FilesystemState.XFS,
            XFS,
            [
                *("probe", "check", "grow unmounted"),
                *("mount", "grow mounted", "unmount"),
            ],
        ),
        (FilesystemState.NONE, WRITER, ["probe"]),
        (FilesystemState.EXT4, BLOCK, []),
        (FilesystemState.RAW, BLOCK, []),
    ],
)
def test_what_a_clone_needs_before_it_is_only_read(
    world: World,
    state: FilesystemState,
    capability: Capability,
    expected: list[str],
) -> None:
    """Mounted or not, nothing stays mounted, and no flag of the user counts."""
    world.set_state(state, recovered=False)
    if state not in {FilesystemState.NONE, FilesystemState.RAW}:
        world.tools.found = Signature(state.value, None, None)
    flags = () if capability.block else ("norecovery",)
    world.recover(dataclasses.replace(capability, mount_flags=flags))
    assert world.names == expected
    assert world.tools.options.flags == ()
    assert world.record().filesystem is state
    assert not world.record().recovered


def test_a_clone_that_a_flag_makes_read_only(world: World) -> None:
    world.set_state(FilesystemState.XFS, recovered=False)
    world.tools.found = Signature("xfs", None, None)
    world.settle(dataclasses.replace(XFS, mount_flags=("ro",)))
    assert world.names[3:] == ["mount", "grow mounted", "unmount", "mount"]
    assert not world.tools.options.writable
    assert world.record().recovered


def test_what_a_flag_makes_read_only_is_not_grown_mounted(world: World) -> None:
    world.set_state(FilesystemState.XFS)
    world.tools.found = Signature("xfs", None, None)
    world.settle(
        dataclasses.replace(WRITER, filesystem=Filesystem.XFS, mount_flags=("ro",))
    )
    assert world.names == ["probe", "check", "grow unmounted", "mount"]


def test_a_reader_makes_nothing(world: World) -> None:
    with pytest.raises(PreconditionError, match="writable once"):
        world.settle(read_only=True)
    assert world.record().filesystem is FilesystemState.NONE


@pytest.mark.parametrize(
    ("before", "read_only", "after"),
    [
        (FilesystemState.NONE, False, FilesystemState.RAW),
        (FilesystemState.NONE, True, FilesystemState.NONE),
        (FilesystemState.RAW, False, FilesystemState.RAW),
        (FilesystemState.EXT4, False, FilesystemState.EXT4),
        (FilesystemState.FOREIGN, False, FilesystemState.FOREIGN),
    ],
)
def test_a_block_stage_touches_nothing(
    world: World, before: FilesystemState, read_only: bool, after: FilesystemState
) -> None:
    world.set_state(before)
    assert world.settle(BLOCK, read_only=read_only) is None
    assert world.names == []
    assert world.record().filesystem is after


def test_a_block_stage_of_a_half_made_filesystem(world: World) -> None:
    world.set_state(FilesystemState.MAKING)
    with pytest.raises(PreconditionError, match="as a filesystem"):
        world.settle(BLOCK)


def test_the_class_chooses_the_filesystem(
    create: Callable[..., VolumeInfo],
    world: World,
    connections: SharedConnections,
) -> None:
    world.set_state(FilesystemState.NONE)
    with connections.pool("fake", "rbd") as pool:
        change_record(
            pool,
            world.record().image_id,
            lambda record: dataclasses.replace(
                record,
                parameters=dataclasses.replace(
                    record.parameters, filesystem=Filesystem.XFS
                ),
            ),
        )
    assert world.settle() is Filesystem.XFS


def test_another_call_that_was_faster(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(*_: object, **__: object) -> None:
        world.set_state(FilesystemState.RAW)

    monkeypatch.setattr(filesystems, "make", overtaken)
    with pytest.raises(ConflictError, match="while its lock was held here"):
        world.settle()
    assert "mount" not in world.names
    assert world.record().filesystem is FilesystemState.RAW
