# SPDX-License-Identifier: Apache-2.0
"""A tenant for each test, and the proof that nothing of it stays behind."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import parts
from tests.cluster import release
from tests.cluster.kube import Kube
from tests.cluster.pool import CephView
from tests.cluster.tenant import Tenant
from tests.cluster.unrest import Unrest
from tests.cluster.unrest import unrest

_COLLECTED_WITHIN: Final = 180.0
_HERE: Final = Path(__file__).parent
_SECONDS: Final = 900
"""How long a test may take unless it says so itself: pods come and go in seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of the cluster more time than others have."""
    for item in items:
        own = item.get_closest_marker("timeout") is not None
        if item.path.is_relative_to(_HERE) and not own:
            item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """Give the cluster's API server."""
    with contextlib.closing(Kube()) as found:
        yield found


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephView]:
    """Give Ceph as its administrator sees it."""
    with contextlib.closing(CephView()) as found:
        yield found


@pytest.fixture
def installed(kube: Kube) -> Iterator[None]:
    """Leave the release as it was before."""
    yield
    release.install()
    for component in ("controller", "node", "datapath"):
        parts.wait_until_ready(kube, component)


@pytest.fixture
def tenant(kube: Kube, ceph: CephView) -> Iterator[Tenant]:
    """Give a namespace with a Secret; afterwards no trace of it may be left."""
    before = set(ceph.images())
    name = f"tenant-{secrets.token_hex(3)}"
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    kube.wait("ServiceAccount", "default", name, lambda _: True)
    made = Tenant(kube, name)
    made.secret()
    yield made
    # What holds volumes first: the namespace's own deletion begins some seconds later.
    for kind in ("StatefulSet", "Pod", "VolumeSnapshot", "PersistentVolumeClaim"):
        for each in kube.all(kind, name):
            kube.delete(kind, each["metadata"]["name"], name)
    kube.delete("Namespace", name)
    _wait_until_nothing_is_left(kube, ceph, name, before)


@pytest.fixture
def restlessness(kube: Kube) -> Iterator[Unrest]:
    """Kill controller pods until the test's tenant is gone; all must converge."""
    with unrest() as found:
        yield found
    found.require_victims(kube)
    parts.wait_until_ready(kube, "controller")


@pytest.fixture
def restless_controllers(
    restlessness: Unrest, tenant: Tenant, kube: Kube
) -> Iterator[None]:
    """Kill a controller pod now and then, and one before the test's body has ended.

    If chance has left it out, one is killed when all that is the tenant's is to go.
    """
    del tenant  # It goes after this, while the killing goes on.
    yield
    restlessness.kill_unless_it_happened(kube)


def _wait_until_nothing_is_left(
    kube: Kube, ceph: CephView, namespace: str, before: set[str]
) -> None:
    """Wait for the PersistentVolumes, snapshots and images of a tenant to go."""
    deadline = time.monotonic() + _COLLECTED_WITHIN
    while left := _left(kube, ceph, namespace, before):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.5)


def _left(kube: Kube, ceph: CephView, namespace: str, before: set[str]) -> list[str]:
    volumes = [
        each["metadata"]["name"]
        for each in kube.all("PersistentVolume")
        if (each["spec"].get("claimRef") or {}).get("namespace") == namespace
    ]
    contents = [
        each["metadata"]["name"]
        for each in kube.all("VolumeSnapshotContent")
        if each["spec"]["volumeSnapshotRef"]["namespace"] == namespace
    ]
    return [*volumes, *contents, *sorted(set(ceph.images()) - before)]
