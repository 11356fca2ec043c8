# SPDX-License-Identifier: Apache-2.0
"""A cluster that lacks one or all of the CRDs for snapshots."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from collections.abc import Iterator
from typing import Final

import pytest

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Status
from tests.cluster import doctor
from tests.cluster import parts
from tests.cluster.kube import Kube
from tests.cluster.kube import Object
from tests.cluster.kube import without_identity
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.tenant import from_snapshot

_GROUP: Final = "snapshot.storage.k8s.io"
_CRD: Final = "CustomResourceDefinition"
_NAMES: Final = tuple(
    f"volumesnapshot{each}.{_GROUP}" for each in ("s", "contents", "classes")
)
_CLASS: Final = "VolumeSnapshotClass"
_REMEDY: Final = ("install all of external-snapshotter's CRDs", "helm upgrade")


@pytest.fixture
def restore(kube: Kube) -> Iterator[Callable[[], None]]:
    """Let CRDs be deleted; give what brings all back, as happens afterwards anyway."""
    # A CRD takes its objects along, and those of others are none of this test's.
    assert kube.all("VolumeSnapshot") == []
    assert kube.all("VolumeSnapshotContent") == []
    crds = [without_identity(kube.get(_CRD, name)) for name in _NAMES]
    classes = [without_identity(each) for each in kube.all(_CLASS)]
    assert classes
    restoring = functools.partial(_restore, kube, crds, classes)
    yield restoring
    restoring()


def _restore(kube: Kube, crds: list[Object], classes: list[Object]) -> None:
    for each in crds:
        # One that is still being deleted would take the new one's place.
        found = kube.find(_CRD, each["metadata"]["name"])
        if found is not None and found["metadata"].get("deletionTimestamp"):
            kube.wait_gone(_CRD, each["metadata"]["name"])
        kube.apply(each)
    for each in crds:
        kube.wait(_CRD, each["metadata"]["name"], "", _established)
    for each in classes:
        kube.apply({"apiVersion": f"{_GROUP}/v1", "kind": _CLASS, **each})


def _established(crd: Object) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(
        each["type"] == "Established" and each["status"] == "True"
        for each in conditions
    )


def _remove(kube: Kube, *names: str) -> None:
    for each in names:
        kube.delete(_CRD, each)
    for each in names:
        kube.wait_gone(_CRD, each)


def _not_ok(check: Check) -> bool:
    return check.status is not Status.OK


@pytest.mark.parametrize("missing", _NAMES)
def test_one_that_is_missing_is_named(
    kube: Kube, restore: Callable[[], None], missing: str
) -> None:
    _remove(kube, missing)
    found = doctor.wait_for("controller", "snapshot-class", _not_ok)
    assert found.status is Status.FAILED
    assert f" {missing} is missing" in found.found
    assert [each for each in _NAMES if each in found.found] == [missing]
    assert all(each in found.remedy for each in _REMEDY)


@pytest.fixture
def unchanged_pods(kube: Kube) -> Iterator[None]:
    """Let no controller pod be replaced, nor any of its containers restart."""
    before = _containers(kube)
    yield
    assert _containers(kube) == before


def _containers(kube: Kube) -> set[tuple[str, int]]:
    return {
        (str(each["containerID"]), int(each["restartCount"]))
        for pod in parts.pods_of(kube, "controller")
        for each in pod["status"]["containerStatuses"]
    }


def test_without_any_all_but_snapshots_works_and_they_work_once_installed(
    tenant: Tenant, unchanged_pods: None, restore: Callable[[], None]
) -> None:
    kube = tenant.kube
    _remove(kube, *_NAMES)
    found = doctor.wait_for("controller", "snapshot-class", _not_ok)
    assert found.status is Status.WARNING
    assert "their CRDs are missing" in found.found
    assert all(each in found.remedy for each in _REMEDY)
    assert "no pod has to be restarted" in found.remedy
    tenant.claim("files", XFS)
    tenant.bound("files")
    shown = ["kubectl", "rbdcrypt", "show", "files", "--namespace", tenant.namespace]
    done = subprocess.run(shown, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    restore()
    tenant.snapshot("kept", "files")
    tenant.claim("restored", XFS, source=from_snapshot("kept"))
    tenant.bound("restored")
