# SPDX-License-Identifier: Apache-2.0
"""The nodes, and the first one's processes: tests run there as its owner would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

FIRST: Final = "lab-node"
SECOND: Final = "lab-node-2"
SECOND_TAINT: Final = "lab/second:NoSchedule"
"""Keeps all pods off the second node that do not ask for it."""

_CLUSTER: Final = Path(__file__).resolve().parents[2] / "hack/cluster"


def _hack(*words: str) -> None:
    command = [sys.executable, str(_CLUSTER), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def restart_kubelet() -> None:
    """Restart kubelet and wait until the node is ready again."""
    _hack("restart", "kubelet")
