# SPDX-License-Identifier: Apache-2.0
"""The driver's processes: commands of their own, on directories of their own.

So a test may stop, kill and restart whatever it wants without taking the lab's
driver away from others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Final

COMMAND: Final = "rbdcrypt-csi"
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 45.0


class Part:
    """One command of the driver: `controller`, `node` or `datapath`."""

    def __init__(
        self,
        name: str,
        directory: Path,
        node_id: str,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Further settings are variables, as RBDCRYPT_KUBECONFIG is one."""
        self.name = name
        self.log_file = directory / f"{name}.log"
        run = directory / "run"
        self.socket = run / f"{name}.sock"
        self.process: subprocess.Popen[bytes] | None = None
        kept = ("PATH", "HOME", "LANG", "RBDCRYPT_CLUSTERS_FILE")
        self._env = {key: os.environ[key] for key in kept if key in os.environ}
        self._env |= {
            "CSI_ENDPOINT": self.endpoint,
            "GRPC_ENABLE_FORK_SUPPORT": "0",
            "PYTHONFAULTHANDLER": "1",
            "RBDCRYPT_NODE_ID": node_id,
            "RBDCRYPT_RUN_DIR": str(run),
            "RBDCRYPT_STATE_DIR": str(directory / "state"),
            **(settings or {}),
        }

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} does not run"
        return self.process.pid

    def start(self) -> None:
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, self.name],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.socket):
            assert self.process.poll() is None, self.log[-2000:]
            assert time.monotonic() < deadline, f"{self.name} does not serve"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as an upgrade does."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # has all its threads shown
            process.wait(_END_SECONDS)
            message = f"{self.name} does not end:\n{self.log[-8000:]}"
            raise AssertionError(message) from None

    def kill(self) -> None:
        """Kill it and all it has started, as `hack/lab restart --kill` does."""
        process, self.process = self.process, None
        if process is None:
            return
        for pid in (process.pid, *descendants(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(_END_SECONDS)

    def restart(self, *, kill: bool = False) -> None:
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def pids(self) -> list[int]:
        """Return the process and all it has started."""
        return [self.pid, *descendants(self.pid)]


def descendants(ancestor: int) -> list[int]:
    """Return the ids of all processes below one, at this moment."""
    parents = dict(_parents())
    found = [ancestor]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def command_line(pid: int) -> str:
    """Return a process's command line, "" if it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode(errors="replace").strip()


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text()
            yield int(entry.name), int(stat.rpartition(")")[2].split()[1])


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
