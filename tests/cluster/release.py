# SPDX-License-Identifier: Apache-2.0
"""The Helm release of the driver, changed by a test and made what it was again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster import parts

RELEASE: Final = "rbdcrypt-csi"
CHART: Final = Path(__file__).resolve().parents[2] / "charts/rbdcrypt-csi"


def helm(*words: str) -> str:
    """Run helm for the release's namespace and return what it prints."""
    done = try_helm(*words)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def try_helm(*words: str) -> subprocess.CompletedProcess[str]:
    """Run helm for the release's namespace, whatever its status."""
    command = ["helm", "--namespace", parts.NAMESPACE, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def values() -> tuple[str, str]:
    """Return the arguments that give the cluster's own values."""
    return "--values", os.environ["CHART_VALUES"]


def install(*words: str) -> str:
    """Install or upgrade the release with the cluster's values and some more."""
    given = ("upgrade", "--install", RELEASE, str(CHART), *values())
    return helm(*given, "--wait", "--timeout=3m", *words)
