# SPDX-License-Identifier: Apache-2.0
"""The chapter of the clone: another team's copy, under another Secret."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from csi_client import Driver
from csi_client import mounted
from telling import Story
from telling import read_files
from telling import write_files

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.domain.ids import VolumeId
from csi_driver.rpc.stubs import csi_pb2

GIB = 1 << 30
FLATTENED_WITHIN = 60.0


class Place:
    """Where one volume is staged and shown."""

    def __init__(self, volume: csi_pb2.Volume, at: Path) -> None:
        self.volume = volume
        self.staging = at / "staging"
        self.target = at / "target"

    def show(self, driver: Driver) -> None:
        """Stage and publish."""
        driver.stage(self.volume, self.staging, mounted("xfs"))
        driver.publish(self.volume, self.staging, self.target, mounted("xfs"))

    def hide(self, driver: Driver) -> None:
        """Unpublish and unstage."""
        driver.unpublish(self.volume, self.target)
        driver.unstage(self.volume, self.staging)


def clone_chapter(
    story: Story, driver: Driver, other: Driver, at: Path, run_dir: Path
) -> None:
    """Tell of a clone from its making to its life without its parent.

    `driver` has the parent's Secret, `other` the clone's.
    """
    with contextlib.ExitStack() as tidy:
        volume = driver.create("demo-parent", GIB, mounted("xfs"))
        parent = Place(volume, at / "parent")
        tidy.enter_context(driver.tidy(volume, parent.staging, parent.target))
        parent.show(driver)
        write_files(parent.target, "parent", 4)
        before = read_files(parent.target)
        story.told("a volume with data, mounted")

        snapshot = driver.snapshot(volume, "demo-snapshot")
        tidy.callback(driver.delete_snapshot, snapshot)
        story.check(snapshot.size_bytes == GIB, "a snapshot of 1 GiB")
        story.told("CreateSnapshot, while it is mounted")

        cloned = _clone(driver, other, snapshot)
        clone = Place(cloned, at / "clone")
        tidy.enter_context(other.tidy(cloned, clone.staging, clone.target))
        story.told("CreateVolume from it, under another Secret, twice as large")

        clone.show(other)
        story.check(read_files(clone.target) == before, "the parent's files")
        usage = os.statvfs(clone.target)
        grown = usage.f_blocks * usage.f_frsize
        story.check(grown > 1.9 * GIB, "the filesystem fills the larger clone")
        story.told("staged beside its parent: the parent's files are there, and room")

        _write_apart(story, parent, clone, before)
        mine = read_files(clone.target)
        size = other.expand(cloned, clone.target, 3 * GIB)
        story.check(size == 3 * GIB, "a clone of 3 GiB")
        story.check(read_files(clone.target) == mine, "the clone's files as they were")
        story.told("both written apart; the clone expanded to 3 GiB while mounted")

        _flatten(story, cloned, run_dir)
        story.check(read_files(clone.target) == mine, "the clone's files as they were")

        parent.hide(driver)
        driver.delete(volume)
        driver.delete_snapshot(snapshot)
        story.told("the parent and its snapshot deleted")

        clone.hide(other)
        clone.show(other)
        story.check(read_files(clone.target) == mine, "the clone's files as they were")
        clone.hide(other)
        other.delete(cloned)
        story.told("the clone staged again with its own Secret alone: all is there")


def _clone(driver: Driver, other: Driver, snapshot: csi_pb2.Snapshot) -> csi_pb2.Volume:
    """Make the clone; this once, its Secret brings the parent's passphrase too."""
    both = {
        **other.secrets,
        "sourceEncryptionPassphrase": driver.secrets["encryptionPassphrase"],
    }
    return other.clone("demo-clone", 2 * GIB, mounted("xfs"), snapshot, both)


def _write_apart(
    story: Story, parent: Place, clone: Place, before: dict[str, str]
) -> None:
    write_files(parent.target, "parent-later", 2)
    write_files(clone.target, "clone", 2)
    (clone.target / "parent-0").unlink()
    theirs, mine = read_files(parent.target), read_files(clone.target)
    story.check(before.items() <= theirs.items(), "the parent keeps all its files")
    story.check("clone-0" not in theirs, "the parent has none of the clone's files")
    story.check("parent-later-0" not in mine, "nor the clone one of its parent's")


def _flatten(story: Story, volume: csi_pb2.Volume, run_dir: Path) -> None:
    """Have the datapath flatten the mounted clone, and wait until it says done."""
    datapath = Datapath(run_dir / "datapath.sock")
    volume_id = VolumeId.parse(volume.volume_id)
    datapath.flatten(volume_id)
    deadline = time.monotonic() + FLATTENED_WITHIN
    state = FlattenState.IDLE
    while state is not FlattenState.DONE and time.monotonic() < deadline:
        time.sleep(0.1)
        status = datapath.status(volume_id)
        if status and status.counters and status.counters.flatten:
            state = status.counters.flatten.state
    story.check(state is FlattenState.DONE, f"flattened, but it is {state.value}")
    story.told("flattened while mounted: its own key alone opens it now")
