# SPDX-License-Identifier: Apache-2.0
"""Every process of the driver as the first one of a container, and its end.

Linux drops signals for such a process that it has no handler for.  Until a command
has set its own, only an init in front of it, as the image has, ends it at once.
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

import pytest

from tests.ceph.end_to_end.parts import COMMAND
from tests.ceph.end_to_end.parts import Part
from tests.ceph.end_to_end.parts import descendants

NAMES = ("controller", "node", "datapath")
UNSHARED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
GRACE_SECONDS = 10.0
"""Kubernetes gives 30."""


class Container(Part):
    """A part whose process has the id 1 in a namespace of its own."""

    def launch(self) -> None:
        """Start it and wait for nothing."""
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*UNSHARED, COMMAND, self.name],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def serving(self) -> bool:
        return self.socket.exists()

    def end(self) -> tuple[int, float]:
        """Send SIGTERM as a runtime does; return the status, and the seconds."""
        assert self.process is not None
        begin = time.monotonic()
        while not (found := descendants(self.process.pid)):
            assert time.monotonic() - begin < 5, self.log
            time.sleep(0.001)
        os.kill(found[0], signal.SIGTERM)
        begin = time.monotonic()
        return self.process.wait(60), time.monotonic() - begin


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="first-") as name:
        yield Path(name)


@pytest.fixture(params=NAMES)
def container(request: pytest.FixtureRequest, directory: Path) -> Iterator[Container]:
    found = Container(request.param, directory, "node-1")
    yield found
    if found.process is not None and found.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            found.process.kill()
        found.process.wait()


def test_it_ends_in_time_once_it_serves(container: Container) -> None:
    container.launch()
    deadline = time.monotonic() + 60
    while not container.serving():
        assert time.monotonic() < deadline, container.log
        time.sleep(0.02)
    time.sleep(0.5)
    status, seconds = container.end()
    assert status == 0, container.log
    assert seconds < GRACE_SECONDS
    assert not container.socket.exists()
