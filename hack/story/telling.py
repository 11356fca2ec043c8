# SPDX-License-Identifier: Apache-2.0
"""How the story is told: a line for each step, and checks that make it count."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

MARKER = b"Here lies the plaintext that nobody on the cluster shall read. "


class Story:
    """Prints each step with its time; `check` is what makes a step count."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self.checks = 0

    def told(self, text: str) -> None:
        """Print one finished step."""
        now = time.monotonic()
        print(f"{now - self._last:7.2f} s  {text}", flush=True)
        self._last = now

    def check(self, holds: bool, expected: str) -> None:
        """Fail the story unless something holds."""
        if not holds:
            message = f"expected: {expected}"
            raise AssertionError(message)
        self.checks += 1

    def end(self) -> None:
        """Print the summary."""
        took = time.monotonic() - self._began
        print(f"{took:7.2f} s  in all; {self.checks} checks held")


def write_files(directory: Path, prefix: str = "file", count: int = 8) -> None:
    """Write some files, durably."""
    for number in range(count):
        content = MARKER * (1 << 15) + os.urandom(1 << 20)
        with (directory / f"{prefix}-{number}").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def read_files(directory: Path) -> dict[str, str]:
    """Return the digests of all files, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
    }
