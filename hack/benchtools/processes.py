# SPDX-License-Identifier: Apache-2.0
"""Processes that a measurement starts and ends, and how much memory they take."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence

_START_SECONDS = 60.0
_POLL_SECONDS = 0.002


class BenchError(Exception):
    """A measurement could not be taken; the message says why."""


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process beside the `with` block and end it, by its id, afterwards."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_socket(
    path: Path, process: subprocess.Popen[bytes], log: Path, kind: str
) -> None:
    """Return as soon as somebody accepts connections at `path`."""
    deadline = time.monotonic() + _START_SECONDS
    while not _accepts(path):
        if process.poll() is not None or time.monotonic() > deadline:
            end = log.read_text(errors="replace")[-2000:]
            raise BenchError(f"{kind} does not serve at {path}:\n{end}")
        time.sleep(_POLL_SECONDS)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def run(*command: str | Path) -> str:
    """Run a command to its end; return its output, BenchError if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(
            f"{' '.join(words[:4])} …: exit {done.returncode}\n{done.stderr[-2000:]}"
        )
    return done.stdout


def run_json(*command: str | Path) -> Any:
    """As `run`, for output that is JSON, perhaps after lines of warning."""
    output = run(*command)
    return json.loads(output[output.index("{") :])


def memory(pid: int, field: Literal["VmRSS", "VmHWM"]) -> float:
    """Return a process's resident memory, present or highest so far, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) / 1024
    raise BenchError(f"process {pid} has no {field}")
