# SPDX-License-Identifier: Apache-2.0
"""A tenant that writes all the time and knows what it was promised."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from csi_driver.devices import mounts

_SIZE = 48 << 10


class Writer:
    """Writes files, each fsynced with its directory, until told or refused.

    What was acknowledged has to be there whatever happens to anybody else.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.acknowledged: dict[str, str] = {}
        self.slowest = 0.0
        self.failure: OSError | None = None
        self.failed_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive() or error, "a write hangs"

    def progress(self, files: int = 5, seconds: float = 30) -> None:
        """Wait until so many further files were acknowledged."""
        wanted = len(self.acknowledged) + files
        deadline = time.monotonic() + seconds
        while len(self.acknowledged) < wanted:
            assert self.failure is None, f"writing failed: {self.failure}"
            assert time.monotonic() < deadline, "writing does not go on"
            time.sleep(0.02)

    def refused_within(self, seconds: float) -> OSError:
        """Wait for the error of a write."""
        self._thread.join(seconds)
        assert self.failure is not None, f"no error within {seconds} s"
        return self.failure

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            content = os.urandom(_SIZE)
            begin = time.monotonic()
            name = f"file-{number}"
            try:
                self._write(name, content)
            except OSError as error:
                self.failure, self.failed_at = error, time.monotonic()
                return
            self.slowest = max(self.slowest, time.monotonic() - begin)
            self.acknowledged[name] = hashlib.sha256(content).hexdigest()
            number += 1

    def _write(self, name: str, content: bytes) -> None:
        # The mount may be gone; the directory below it is not meant.
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            file = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
            try:
                os.write(file, content)
                os.fsync(file)
            finally:
                os.close(file)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lost(self, directory: Path) -> dict[str, str]:
        """Return what was acknowledged and is missing or different."""
        return lost(self.acknowledged, directory)


def lost(promised: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Return which of these files are missing or different."""
    assert promised, "nothing was written"
    assert is_mounted(directory), f"nothing is mounted at {directory}"
    found: dict[str, str] = {}
    for name, digest in promised.items():
        path = directory / name
        if not path.exists():
            found[name] = "missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            found[name] = "different"
    return found


def is_mounted(path: Path) -> bool:
    return bool(mounts.at(mounts.read_mounts(), path))
