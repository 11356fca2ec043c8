# SPDX-License-Identifier: Apache-2.0
"""Podman with a storage of its own, for containers of one test session.

Images come as the archives that `hack/image build` prints.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Final

_REPO: Final = Path(__file__).parents[3]
_PATIENCE: Final = 60.0


def archive(name: str) -> Path:
    """Return the archive of one of the images of `hack/image`."""
    words = (sys.executable, str(_REPO / "hack/image"), "build", name)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    status: int
    output: str
    errors: str


class Container:
    """A container that was started, and may have ended."""

    def __init__(self, podman: Podman, identity: str) -> None:
        self._podman = podman
        self._identity = identity

    def execute(self, *words: str, detach: bool = False) -> Ended:
        """Run a further command in it."""
        flags = ("--detach",) if detach else ()
        return self._podman.call("exec", *flags, self._identity, *words)

    def logs(self) -> str:
        """Return what its processes have written to both streams."""
        done = self._podman.call("logs", self._identity)
        return done.output + done.errors

    def wait_for(self, text: str) -> None:
        """Wait until it has written `text`; AssertionError if it does not."""
        deadline = time.monotonic() + _PATIENCE
        while text not in self.logs():
            assert self.state()["Running"], self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def state(self) -> dict[str, Any]:
        """Return what Podman knows of its first process."""
        text = self._podman.check("inspect", "--format={{json .State}}", self._identity)
        state: dict[str, Any] = json.loads(text)
        return state

    def told_to_end(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit status and the seconds that it took."""
        begin = time.monotonic()
        self._podman.check("kill", "--signal=TERM", self._identity)
        status = int(self._podman.check("wait", self._identity))
        return status, time.monotonic() - begin


class Podman:
    """Podman on the storage in `place`."""

    def __init__(self, place: Path) -> None:
        kind = subprocess.run(
            ["stat", "--file-system", "--format=%T", place],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()
        # An overlay cannot lie on another one.
        driver = "vfs" if kind == "overlayfs" else "overlay"
        self._command = [
            "podman",
            f"--root={place}/storage",
            f"--runroot={place}/run",
            f"--storage-driver={driver}",
            "--cgroup-manager=cgroupfs",
            "--runtime=runc",
        ]

    def call(self, *words: str) -> Ended:
        """Run one of Podman's commands, whatever its exit status."""
        done = subprocess.run(
            [*self._command, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin", "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
            timeout=_PATIENCE,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def check(self, *words: str) -> str:
        """Run a command that has to succeed; return its output."""
        done = self.call(*words)
        assert done.status == 0, f"podman {' '.join(words)}: {done.errors}"
        return done.output.strip()

    def load(self, file: Path) -> str:
        """Load an archive; return the image's name."""
        return self.check("load", "--quiet", f"--input={file}").rpartition(": ")[2]

    def run(self, *words: str) -> Ended:
        """Run a container to its end, as a pod of ours would: unable to write."""
        return self.call("run", "--rm", *_SEALED, *words)

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[Container]:
        """Start a container; it is removed at the end."""
        identity = self.check("run", "--detach", *_SEALED, *words)
        try:
            yield Container(self, identity)
        finally:
            self.check("rm", "--force", "--time=1", identity)


_SEALED: Final = ("--network=none", "--read-only")
"""Podman puts a tmpfs over /tmp and /run of a container that cannot write."""
