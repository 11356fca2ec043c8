# SPDX-License-Identifier: Apache-2.0
"""The chart as helm renders it, for the cases whose values are in its folder ci/."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CHART = REPO / "charts/rbdcrypt-csi"
GOLDEN = REPO / "tests/chart/golden"

RELEASE = "rbdcrypt-csi"
NAMESPACE = "rbdcrypt-system"
KUBERNETES = "1.36.0"
"""What renders are made for; without a cluster helm would assume its own."""

SNAPSHOTS = "snapshot.storage.k8s.io/v1"
"""The API group and version that a cluster with snapshots knows."""

_SUFFIX = "-values.yaml"


class HelmError(Exception):
    """What helm says when it refuses, or how to get helm."""


def helm() -> str:
    """Return the path of helm: $HELM, or what PATH has; HelmError without it."""
    found = os.environ.get("HELM") or shutil.which("helm")
    if not found:
        message = (
            "helm is not here: set HELM to its path, or put it into PATH"
            " (go install helm.sh/helm/v3/cmd/helm@v3.21.4, or hack/cluster)"
        )
        raise HelmError(message)
    return found


def cases() -> dict[str, Path]:
    """Return the values files of the chart's folder ci/ by the names of their cases."""
    found = sorted((CHART / "ci").glob(f"*{_SUFFIX}"))
    return {path.name.removesuffix(_SUFFIX): path for path in found}


def golden(case: str) -> Path:
    """Return the file that keeps a case's render."""
    return GOLDEN / f"{case}.yaml"


def template(
    *values: Path, sets: tuple[str, ...] = (), apis: tuple[str, ...] = (SNAPSHOTS,)
) -> str:
    """Return what `helm template` makes of these values; HelmError with its words.

    `sets` are arguments of --set-json, `apis` what the cluster knows beyond
    Kubernetes' own.
    """
    words = [helm(), "template", RELEASE, str(CHART)]
    words += ["--namespace", NAMESPACE, "--kube-version", KUBERNETES]
    words += [word for api in apis for word in ("--api-versions", api)]
    words += [word for path in values for word in ("--values", str(path))]
    words += [word for each in sets for word in ("--set-json", each)]
    return run(*words)


def run(*words: str) -> str:
    """Run helm and return its output; HelmError with what it says on stderr."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmError(done.stderr.strip() or done.stdout.strip())
    return done.stdout
