# SPDX-License-Identifier: Apache-2.0
"""README's quick start, run as it is written, where the driver is not installed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.cluster import parts
from tests.cluster import release
from tests.cluster.kube import Kube
from tests.cluster.tenant import Tenant
from tests.unit.docs.pages import Page

_TENANT: Final = "team-a"
_CEPH_USER: Final = "rbdcrypt-ceph"


@pytest.fixture
def place(kube: Kube, tmp_path: Path) -> Iterator[Path]:
    """Give a directory like a clone; afterwards the cluster is as it was before."""
    user = kube.get("Secret", _CEPH_USER, parts.NAMESPACE)
    release.helm("uninstall", release.RELEASE, "--wait", "--timeout=3m")
    kube.delete("Namespace", parts.NAMESPACE)
    kube.wait_gone("Namespace", parts.NAMESPACE)
    (tmp_path / "charts").symlink_to(release.CHART.parent)
    yield tmp_path
    if kube.find("Namespace", _TENANT):
        kube.delete("PersistentVolumeClaim", "data", _TENANT)
        kube.wait_gone("PersistentVolumeClaim", "data", _TENANT)
        kube.delete("Namespace", _TENANT)
        kube.wait_gone("Namespace", _TENANT)
    release.helm("uninstall", release.RELEASE, "--wait", "--ignore-not-found")
    space = {"name": parts.NAMESPACE}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": space})
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": _CEPH_USER, "namespace": parts.NAMESPACE},
            "data": user["data"],
        }
    )
    release.install()
    for component in ("controller", "node", "datapath"):
        parts.wait_until_ready(kube, component)


@pytest.mark.timeout(600)
def test_the_quick_start_works_as_it_is_written(kube: Kube, place: Path) -> None:
    blocks = list(Page("README.md").fences("Quick start"))
    values, here = (
        yaml.safe_load(each.text) for each in blocks if each.language == "yaml"
    )
    (place / "values.yaml").write_text(yaml.safe_dump(values | here))
    shown = [each.text for each in blocks if each.language == ""]
    commands = [text for text in shown if not text.startswith("$ ")]
    assert len(commands) == 3
    for each in commands:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", each],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    tenant = Tenant(kube, _TENANT)
    tenant.bound("data")
    tenant.pod("app", "data")
    tenant.ready("app")
    tenant.run("app", "echo kept > /data/file && sync /data/file")
    tenant.end("app")
