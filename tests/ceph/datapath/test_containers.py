# SPDX-License-Identifier: Apache-2.0
"""The datapath as the first process of a container, with namespaces of its own.

As in a pod, its PID namespace begins at 1 with each container and ends with its
first process, and the mounts of others, such as that of a staged volume, are not
seen in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.devices import loop
from csi_driver.devices.fuse_loop import is_file_of
from csi_driver.domain.errors import InUseError
from tests.ceph.end_to_end.parts import descendants

if TYPE_CHECKING:
    from csi_driver.devices.device import Device
    from tests.ceph.datapath.conftest import Eventually
    from tests.ceph.datapath.conftest import StartDatapath
    from tests.ceph.datapath.running import Running
    from tests.ceph.datapath.running import Volume

UNSHARED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
CACHED_SECONDS = 1.1
"""The kernel tells a file's attributes that long after its FUSE process has died."""

HIDING = 'umount "$0" 2>/dev/null; exec "$@"'


class Containers:
    """Containers of one datapath, one after the other, in the same directory."""

    def __init__(self, start: StartDatapath, staged: Path) -> None:
        self._start = start
        self._staged = staged
        self._directory: Path | None = None
        self.running: Running | None = None

    def run(self) -> Running:
        """Start the next container; what is mounted at `staged` is hidden from it."""
        hiding = ("--propagation", "private", "sh", "-c", HIDING, str(self._staged))
        self.running = self._start(self._directory, (*UNSHARED, *hiding))
        self._directory = self.running.directory
        return self.running


def of_process(pid: int, name: str) -> str:
    """Return what /proc/PID/status says of a process, "" if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            found, _, text = line.partition(":")
            if found == name:
                return text.strip()
    return ""


def out_here(container: Running, inside: int) -> int:
    """Return the id out here of a process of the container."""
    (found,) = (
        pid
        for pid in descendants(container.process.pid)
        if of_process(pid, "NSpid").split()[1:] == [str(inside)]
    )
    return found


def bound(device: Device) -> bool:
    """Whether the loop device still is this volume's.

    Once it is free, any other process of this kernel may bind it to a file of its own.
    """
    backing = loop.backing_file(device.path.name)
    return backing is not None and is_file_of(backing, device.identity)


def mount(device: Path, place: Path) -> None:
    make = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0", str(device)]
    subprocess.run(make, check=True)
    subprocess.run(["mount", str(device), str(place)], check=True)


def unmount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)


def end(container: Running) -> float:
    """End it as a runtime does, by a signal to its first process."""
    begin = time.monotonic()
    os.kill(out_here(container, 1), signal.SIGTERM)
    assert container.process.wait(40) == 0, container.log[-2000:]
    return time.monotonic() - begin


@pytest.fixture
def staged() -> Iterator[Path]:
    """Give a directory to mount on."""
    with tempfile.TemporaryDirectory(prefix="staged-") as name:
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=False, capture_output=True)


@pytest.fixture
def containers(start_datapath: StartDatapath, staged: Path) -> Iterator[Containers]:
    containers = Containers(start_datapath, staged)
    yield containers
    if containers.running is not None and containers.running.process.poll() is None:
        end(containers.running)


def test_a_container_that_ends_closes_its_volumes_and_leaves_nothing(
    containers: Containers, volume: Volume
) -> None:
    container = containers.run()
    device = container.client.open(volume.request()).device
    pids = descendants(container.process.pid)
    assert end(container) < 10
    assert not [pid for pid in pids if of_process(pid, "State")]
    assert container.state_files == []
    assert volume.lock_owner() is None
    assert not bound(device)


def test_the_first_process_reaps_what_it_started(
    containers: Containers, volume: Volume, eventually: Eventually
) -> None:
    container = containers.run()

    def zombies() -> list[int]:
        family = descendants(container.process.pid)
        return [pid for pid in family if of_process(pid, "State").startswith("Z")]

    for _ in range(2):
        opened = container.client.open(volume.request())
        assert opened.device.process is not None, "nbdfuse is what is at stake"
        for inside in (opened.device.process.pid, container.worker_pid(volume)):
            os.kill(out_here(container, inside), signal.SIGKILL)
        container.client.close(volume.volume_id)
    eventually("all reaped", lambda: not zombies(), 10)


def test_a_new_container_takes_over_from_a_killed_one(
    containers: Containers, volume: Volume
) -> None:
    """The new one's processes and threads have the numbers of the old one's."""
    first = containers.run()
    first.client.open(volume.request())
    old = volume.lock_owner()
    first.kill()
    begin = time.monotonic()
    second = containers.run()
    (status,) = second.client.list()
    assert not status.alive
    device = second.client.open(volume.request()).device
    assert time.monotonic() - begin < 10, "nothing was waited for"
    assert volume.lock_owner() not in {None, old}
    second.disk(volume).write(0, b"\x5a" * 4096)
    second.client.close(volume.volume_id)
    assert not bound(device)


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_device_that_is_mounted_elsewhere_outlives_its_container_no_longer_than_that(
    containers: Containers, volume: Volume, staged: Path, how: str
) -> None:
    first = containers.run()
    device = first.client.open(volume.request()).device
    mount(device.path, staged)
    with pytest.raises(InUseError, match="mounted in another mount namespace"):
        first.client.close(volume.volume_id)
    assert first.client.list()[0].alive, "nothing was changed"
    if how == "killed":
        first.kill()
    else:
        assert end(first) < 10
    time.sleep(CACHED_SECONDS)
    begin = time.monotonic()
    second = containers.run()
    assert time.monotonic() - begin < 10, "a mounted device is not waited for"
    assert bound(device), "the mount holds it"
    unmount(staged)
    second.client.close(volume.volume_id)
    assert not bound(device), "nothing of the old container is left"
    again = second.client.open(volume.request()).device
    mount(again.path, staged)
    unmount(staged)
    second.client.close(volume.volume_id)
    assert not bound(again)
