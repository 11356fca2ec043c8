# SPDX-License-Identifier: Apache-2.0
"""How large the driver's image is, and how long its processes take to serve.

A start is counted from the first process of the container to the log line that
says that the process serves, so that Podman's own time is left out.  There is no
cluster: nothing is connected to before it is asked for.

Run as a program, this module measures, inside a prepared root, and prints JSON.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

if __name__ == "__main__":  # started by path: let the imports below work
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labtools import places
from labtools import shell

from imagetools import images
from imagetools import podman

if TYPE_CHECKING:
    from collections.abc import Iterator

_STARTS: Final = 5
_PATIENCE: Final = 60.0
"""Seconds for a start; no goal, a bound for what hangs."""

_READY: Final = {
    "controller": "serving",
    "node": "serving",
    "datapath": "datapath ready",
}
"""What each process logs when it serves."""

_CLUSTERS: Final = [
    {
        "clusterID": "nowhere",
        "monitors": ["192.0.2.1:6789"],
        "rbdcrypt": {
            "userID": "rbdcrypt",
            "keyFile": "/etc/rbdcrypt-csi/key",
            "pools": [{"name": "rbd"}],
        },
    }
]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured."""

    unpacked: int
    """Bytes of all layers."""
    compressed: int
    """Bytes of all layers as a registry serves them (gzip)."""
    seconds: dict[str, float]
    """The middle of the seconds from start to service, by command."""


def measure() -> Figures:
    """Measure the driver's image, made if needed; LabError if it does not start."""
    archive = images.ensure_driver_image()
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-measure-") as directory:
        job = Path(directory)
        run = podman.command("--runtime=runc", place=job / "storage")
        command = shlex.join(
            ["/usr/bin/python3", __file__, str(archive), str(job), *shlex.split(run)]
        )
        log = places.cache_dir() / "log" / "image-measure.log"
        podman.run(command, (job, places.REPO), log)
        found = json.loads((job / "figures.json").read_text())
    return Figures(**found)


# --------------------------------------------------------------- inside the root


class _Inside:
    """The image in a storage of its own."""

    def __init__(self, command: list[str], job: Path) -> None:
        self._podman = command
        self._job = job

    def run(self, *words: str | Path) -> str:
        return shell.run(*self._podman, *words)

    def compressed(self) -> int:
        """Return the size of all layers after gzip, in bytes."""
        target = self._job / "compressed"
        self.run("push", "--quiet", "--compress", images.DRIVER, f"dir:{target}")
        manifest = json.loads((target / "manifest.json").read_text())
        return sum(int(layer["size"]) for layer in manifest["layers"])

    def seconds_to_service(self, command: str) -> float:
        """Start a container of this command; return its seconds until it serves."""
        with self._running(command) as container:
            started = self.run(
                "inspect", "--format={{.State.StartedAt.UnixNano}}", container
            )
            served = self._when_served(container, _READY[command])
        return served - int(started) / 1e9

    @contextlib.contextmanager
    def _running(self, command: str) -> Iterator[str]:
        settings = {
            "CSI_ENDPOINT": "unix:///run/csi.sock",
            "RBDCRYPT_NODE_ID": "measured",
        }
        container = self.run(
            *("run", "--detach", "--network=none", "--read-only"),
            "--tmpfs=/var/lib/rbdcrypt-csi",
            f"--volume={self._job}/etc:/etc/rbdcrypt-csi:ro",
            *(f"--env={name}={value}" for name, value in settings.items()),
            *(images.DRIVER, command),
        ).strip()
        try:
            yield container
        finally:
            self.run("rm", "--force", "--time=0", container)

    def _when_served(self, container: str, event: str) -> float:
        deadline = time.monotonic() + _PATIENCE
        while True:
            logs = self._logs(container)
            for line in logs.splitlines():
                entry = json.loads(line)
                if entry.get("event") == event:
                    return _seconds(entry["timestamp"])
            if time.monotonic() > deadline:
                raise shell.LabError(f"no {event!r} in {_PATIENCE:.0f} s:\n{logs}")
            time.sleep(0.1)

    def _logs(self, container: str) -> str:
        """Return what a container has written; logs go to stderr."""
        return subprocess.run(
            [*self._podman, "logs", container],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        ).stdout


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).astimezone(UTC).timestamp()


def _main(archive: str, job: Path, command: list[str]) -> None:
    inside = _Inside(command, job)
    etc = job / "etc"
    etc.mkdir()
    (etc / "config.json").write_text(json.dumps(_CLUSTERS))
    (etc / "key").write_text("AAAA\n")
    inside.run("load", "--quiet", f"--input={archive}")
    size = inside.run("image", "inspect", "--format={{.Size}}", images.DRIVER)
    figures = {
        "unpacked": int(size),
        "compressed": inside.compressed(),
        "seconds": {
            name: statistics.median(
                inside.seconds_to_service(name) for _ in range(_STARTS)
            )
            for name in _READY
        },
    }
    (job / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
