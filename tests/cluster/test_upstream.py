# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' own storage suite, told what the driver can do by upstream/driver.yaml.

A chosen set runs here; UPSTREAM=all runs every spec that is not disruptive.
docs/upstream-suite.md records what passes, and why not.
"""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.kube import Kube
from tests.cluster.kube import Object
from tests.cluster.node import SECOND
from tests.cluster.node import SECOND_TAINT

_HERE: Final = Path(__file__).parent / "upstream"
_NAME: Final = "rbdcrypt-upstream"
"""Of the class, and of the namespace of its Secret."""

_ALL: Final = r"External.Storage"
_CHOSEN: Final = (
    r"External.Storage.*("
    r"default fs.*(should store data|subPath should support existing directory)"
    r"|block volmode.*should store data"
    r"|Generic Ephemeral-volume \(default fs\).*should create read.write inline"
    r"|provisioning should provision storage with (snapshot|pvc) data source( \[|$)"
    r"|volume-expand.*should resize volume when PVC is edited while pod is using it"
    r"|fsgroupchangepolicy.*\(OnRootMismatch\).*new pod fsgroup applied"
    r"|read-write-once-pod"
    r"|volume-modify.*should modify volume with no VAC"
    r")"
)

_SECONDS: Final = 4 * 3600
"""The whole set takes two hours or so on two processors."""

_AT_LEAST: Final = 10
"""More specs than this pass in any run worth its time."""

_NEVER: Final = (
    r"\[Disruptive\]"  # restart nodes by ssh
    r"|Feature:(Windows|SELinux)|ntfs"  # the nodes have neither
    r"|any volume data source"  # images of a populator, from a registry
)

_LONG: Final = r"|\[Serial\]|\[Slow\]"
"""Left out as well unless a run is asked for by UPSTREAM."""


@pytest.fixture
def storage_class(kube: Kube) -> Iterator[None]:
    """Give a class whose Secret is the same in every namespace."""
    metadata: Object = {"name": _NAME}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "passphrase", "namespace": _NAME},
            "stringData": {"encryptionPassphrase": os.urandom(16).hex()},
        }
    )
    secrets = {
        f"csi.storage.k8s.io/{use}-secret-{part}": value
        for use in ("provisioner", "node-stage", "controller-expand", "node-expand")
        for part, value in (("name", "passphrase"), ("namespace", _NAME))
    }
    kube.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": metadata,
            "provisioner": "csi.rbdcrypt.io",
            "parameters": {
                "clusterID": "lab",
                "pool": "rbd",
                "csi.storage.k8s.io/fstype": "xfs",
                **secrets,
            },
            "allowVolumeExpansion": True,
        }
    )
    yield
    kube.delete("StorageClass", _NAME)
    kube.delete("Namespace", _NAME)


@pytest.fixture
def both_nodes() -> Iterator[None]:
    """Let all pods run on the second node, too: some specs want two."""
    taint = ("kubectl", "taint", "nodes", SECOND)
    subprocess.run([*taint, f"{SECOND_TAINT}-"], check=True)
    yield
    subprocess.run([*taint, SECOND_TAINT], check=True)


@pytest.mark.timeout(_SECONDS)
@pytest.mark.usefixtures("storage_class", "both_nodes")
def test_the_storage_suite_of_kubernetes_passes(tmp_path: Path) -> None:
    suite = Path(os.environ["STORAGE_SUITE"]) / "e2e.test"
    if not suite.exists():
        pytest.fail("the suite is not there: hack/cluster up --suite")
    report = tmp_path / "report.xml"
    chosen = os.environ.get("UPSTREAM", "")
    done = subprocess.run(
        [
            str(suite),
            f"-kubeconfig={os.environ['KUBECONFIG']}",
            "-provider=local",
            "-node-os-distro=debian",
            "-allowed-not-ready-nodes=-1",
            f"-repo-root={_HERE}",
            f"-storage.testdriver={_HERE / 'driver.yaml'}",
            f"-ginkgo.focus={_ALL if chosen == 'all' else chosen or _CHOSEN}",
            f"-ginkgo.skip={_NEVER if chosen else _NEVER + _LONG}",
            "-ginkgo.no-color",
            f"-ginkgo.timeout={_SECONDS - 300}s",
            f"-ginkgo.junit-report={report}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    (tmp_path / "log").write_text(done.stdout)
    names = sorted(_results(report))
    print(*names, sep="\n")  # noqa: T201  # the record of what has passed
    failed = [name for name in names if name.startswith("failed")]
    assert (done.returncode, failed) == (0, []), done.stdout[-20000:]
    assert sum(name.startswith("passed") for name in names) > _AT_LEAST


def _results(report: Path) -> Iterator[str]:
    """Give `status: name` of each spec that was chosen, and why it skipped itself."""
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314  (its own)
        name, status = case.get("name", ""), case.get("status", "")
        why = ""
        if (skipped := case.find("skipped")) is not None:
            why = skipped.get("message", "").removeprefix("skipped").strip(" -")
            if not why:
                continue  # not chosen
        if name.startswith("[It]"):
            status = status if status in {"passed", "skipped"} else "failed"
            yield f"{status}: {name}{why and f': {why}'}"
