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
    from collections.abc import Callable
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

    def pods_known(self, node: str) -> bool:
        """Tell whether a node's kubelet has heard of all pods that are bound to it."""
        here = f"--field-selector=spec.nodeName={node}"
        bound = ("get", "pods", "--all-namespaces", here, "--output=json")
        try:
            known = self._uids("get", "--raw", f"/api/v1/nodes/{node}/proxy/pods")
        except shell.LabError:
            return False  # kubelet does not serve yet
        return self._uids(*bound) <= known

    def _uids(self, *words: str) -> set[str]:
        items = json.loads(self.run(*words))["items"] or ()
        return {each["metadata"]["uid"] for each in items}

    def wait(self, what: str, *words: str, seconds: float) -> None:
        """Repeat a command until it succeeds; LabError names `what` if it does not."""
        try:
            self.wait_until(what, lambda: self.succeeds(*words), seconds)
        except shell.LabError as error:
            done = subprocess.run(
                self.command(*words), capture_output=True, text=True, check=False
            )
            raise shell.LabError(f"{error}: {done.stdout}{done.stderr}") from None

    def wait_until(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Ask until something holds; LabError names `what` if it does not in time."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise shell.LabError(f"{what} in {seconds:.0f} s")
            time.sleep(0.2)
