# SPDX-License-Identifier: Apache-2.0
"""Asking and telling the API server, by kubectl."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from typing import TYPE_CHECKING
from typing import Any

from labtools import shell

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the administrator's kubeconfig."""

    programs: Path
    kubeconfig: Path

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line for `words`."""
        program = self.programs / "kubectl"
        return [
            str(each) for each in (program, "--kubeconfig", self.kubeconfig, *words)
        ]

    def run(self, *words: str | Path, stdin: str = "") -> str:
        """Run a command; return its output; LabError with all of it if it fails."""
        return shell.run(*self.command(*words), stdin=stdin)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "--server-side", "-f", "-", stdin=json.dumps(items))

    def succeeds(self, *words: str) -> bool:
        """Tell whether a command succeeds."""
        done = subprocess.run(self.command(*words), capture_output=True, check=False)
        return done.returncode == 0

    def server_ready(self) -> bool:
        """Tell whether the API server serves."""
        return self.succeeds("get", "--raw", "/readyz")

    def wait(self, what: str, *words: str, seconds: float) -> None:
        """Repeat a command until it succeeds; LabError names `what` if it does not."""
        deadline = time.monotonic() + seconds
        while not self.succeeds(*words):
            if time.monotonic() > deadline:
                done = subprocess.run(
                    self.command(*words), capture_output=True, text=True, check=False
                )
                raise shell.LabError(f"{what}: {done.stdout}{done.stderr}")
            time.sleep(0.2)
