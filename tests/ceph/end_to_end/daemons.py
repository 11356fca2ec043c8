# SPDX-License-Identifier: Apache-2.0
"""Ceph's daemons in the lab, to be stopped, slowed down and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MARKER: Final = Path("/etc/rbdcrypt-lab.json")


class Daemon:
    """`mon` or `osd` of the lab."""

    def __init__(self, name: str) -> None:
        run = Path(json.loads(MARKER.read_text())["run"])
        self._pid_file = run / "pids" / f"ceph-{name}"

    @property
    def pid(self) -> int:
        return int(self._pid_file.read_text().split()[0])

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it hang, as a machine does that lost its power or its network.

        An OSD for less than its read lease of 16 s: no peer would renew that, and
        a lone one may call itself laggy and never answer again.
        """
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def slow(self, pause: float = 0.3, work: float = 0.05) -> Iterator[None]:
        """Let it work only now and then."""
        pid, end = self.pid, threading.Event()

        def pulse() -> None:
            while not end.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(pause)
                os.kill(pid, signal.SIGCONT)
                time.sleep(work)

        thread = threading.Thread(target=pulse)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    @contextlib.contextmanager
    def dead(self) -> Iterator[None]:
        """Kill it; start it again at the end as it was started before."""
        proc = Path(f"/proc/{self.pid}")
        words = (proc / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        pairs = (proc / "environ").read_bytes().rstrip(b"\0").split(b"\0")
        env = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
        os.kill(self.pid, signal.SIGKILL)
        _wait_gone(proc)
        try:
            yield
        finally:
            child = subprocess.Popen(
                words,
                env=env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            stat = Path(f"/proc/{child.pid}/stat").read_text()
            start = stat.rpartition(")")[2].split()[19]
            # The lab stops it at its own end, as the one it has started.
            self._pid_file.write_text(f"{child.pid} {start}\n")
            child.returncode = 0


def _wait_gone(proc: Path) -> None:
    deadline = time.monotonic() + 20
    while proc.exists():
        with contextlib.suppress(OSError):
            state = (proc / "stat").read_text().rpartition(")")[2].split()[0]
            if state in "ZX":
                return
        assert time.monotonic() < deadline, f"{proc} does not end"
        time.sleep(0.02)
