# SPDX-License-Identifier: Apache-2.0
"""Processes that outlive the command that started them.

A process is remembered by its id and start time, so that a reused id is never
taken for ours, and nothing is ever ended by name.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence

PART_VARIABLE = "RBDCRYPT_LAB_PART"
"""Set for every part of the driver and inherited by all it starts."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from later ones with the same id."""

    pid: int
    start: str

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """Return the living process with this id; a zombie is not living."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else cls(pid, fields[19])

    @classmethod
    def load(cls, path: Path) -> Process | None:
        """Return the living process that `path` remembers."""
        try:
            pid, start = path.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        found = cls.find(int(pid))
        return found if found and found.start == start else None

    def save(self, path: Path) -> None:
        """Remember the process in `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{self.pid} {self.start}\n")

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return Process.find(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still is the one we know."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.alive():
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; return whether it came in time."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive():
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(int(seconds * 1000)))
        finally:
            os.close(descriptor)


def stop(processes: Iterable[Process], seconds: float = 10) -> None:
    """End processes by SIGTERM, and by SIGKILL those that do not obey in time."""
    processes = list(processes)
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    for process in processes:
        if not process.wait(max(0.0, deadline - time.monotonic())):
            process.signal(signal.SIGKILL)
            process.wait(5)


def start(
    command: Sequence[str | Path],
    pid_file: Path,
    log: Path,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a daemon in its own session, output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd="/",
            env=env,
            start_new_session=True,
        )
    found = Process.find(child.pid) or Process(child.pid, "dead")
    found.save(pid_file)
    # It is meant to live on; without this, Popen warns when it is collected.
    child.returncode = 0
    return found


def only_child(parent: Process) -> Process:
    """Return the child of a process that has just one."""
    path = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    found = Process.find(int(path.read_text()))
    if found is None:
        message = f"process {parent.pid} has no living child"
        raise ProcessLookupError(message)
    return found


def all_processes() -> Iterator[Process]:
    """Yield every living process of the machine."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := Process.find(int(entry.name))):
            yield found


def of_part(part: str) -> list[Process]:
    """Return all processes with `part` in their environment, and descendants."""
    wanted = f"{PART_VARIABLE}={part}".encode()
    living = list(all_processes())
    found = {}
    for process in living:
        with contextlib.suppress(OSError):  # gone, or another's
            content = Path(f"/proc/{process.pid}/environ").read_bytes()
            if wanted in content.split(b"\0"):
                found[process.pid] = process
    parents = {process: _parent(process) for process in living}
    size = 0
    while size != len(found):
        size = len(found)
        for process, parent in parents.items():
            if parent in found:
                found[process.pid] = process
    return list(found.values())


def _parent(process: Process) -> int:
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def of_mount_namespace(holder: Process) -> list[Process]:
    """Return all processes in the mount namespace of `holder`, itself included."""
    return _of_namespace(holder, "mnt")


def of_network_namespace(holder: Process) -> list[Process]:
    """Return all processes in the network namespace of `holder`, itself included."""
    return _of_namespace(holder, "net")


def _of_namespace(holder: Process, kind: str) -> list[Process]:
    try:
        wanted = Path(f"/proc/{holder.pid}/ns/{kind}").readlink()
    except FileNotFoundError:
        return []
    found = []
    for process in all_processes():
        with contextlib.suppress(OSError):  # gone, or another's
            if Path(f"/proc/{process.pid}/ns/{kind}").readlink() == wanted:
                found.append(process)
    return found
