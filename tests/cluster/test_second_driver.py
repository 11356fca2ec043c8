# SPDX-License-Identifier: Apache-2.0
"""A second driver of the same name, that came in where Helm was not asked."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import Final

import pytest
import yaml

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Status
from tests.cluster import doctor
from tests.cluster import parts
from tests.cluster.kube import PATIENCE
from tests.cluster.kube import Kube
from tests.cluster.kube import Object
from tests.cluster.release import CHART
from tests.cluster.release import values
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant

_NAMESPACE: Final = "second-driver"
_RELEASE: Final = "second"
_SHARED: Final = frozenset(
    {"CSIDriver", "StorageClass", "VolumeAttributesClass", "VolumeSnapshotClass"}
)
"""What the two would have under the same names: the first one's stay as they are."""
_OTHER_PORTS: Final = "node.httpPort=9781,datapath.httpPort=9782"

type Install = Callable[..., None]


@pytest.fixture
def install(kube: Kube) -> Iterator[Install]:
    """Give what installs a second driver without Helm; it is gone afterwards."""
    applied: list[Object] = []

    def install(*words: str) -> None:
        objects = _rendered(*words)
        applied[:] = objects
        _kubectl("apply", "--server-side", "--force-conflicts", objects=objects)

    try:
        _make_namespace(kube)
        yield install
    finally:
        if applied:
            _kubectl("delete", "--ignore-not-found", "--wait=false", objects=applied)
        kube.delete("Namespace", _NAMESPACE)
        kube.wait_gone("Namespace", _NAMESPACE)
    doctor.wait_for(None, "csi-driver", lambda each: each.status is Status.OK)


def _make_namespace(kube: Kube) -> None:
    """Make the second driver's namespace, with the Ceph user of the first one."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}}
    kube.apply(space)
    name = "rbdcrypt-ceph"
    ceph = kube.get("Secret", name, parts.NAMESPACE)
    copy = {"metadata": {"name": name, "namespace": _NAMESPACE}, "data": ceph["data"]}
    kube.apply({"apiVersion": "v1", "kind": "Secret", **copy})


def _rendered(*words: str) -> list[Object]:
    command = ["helm", "template", _RELEASE, str(CHART), "--namespace", _NAMESPACE]
    given = [*command, *values(), *words]
    text = subprocess.run(given, capture_output=True, text=True, check=True).stdout
    every: list[Any] = list(yaml.safe_load_all(text))
    return [each for each in every if each and each["kind"] not in _SHARED]


def _kubectl(*words: str, objects: list[Object]) -> None:
    """Run kubectl with objects as its input."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    command = ["kubectl", *words, "--filename=-"]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _pods(kube: Kube, component: str) -> list[str]:
    found = kube.all(
        "Pod", _NAMESPACE, label_selector=f"app.kubernetes.io/component={component}"
    )
    return [str(each["metadata"]["name"]) for each in found]


def _wait_for_log(kube: Kube, component: str, *said: str) -> str:
    """Wait until a pod of the second driver has written something; return its log."""
    deadline = time.monotonic() + PATIENCE
    while True:
        logs = [_log(name, component) for name in _pods(kube, component)]
        for each in logs:
            if all(part in each for part in said):
                return each
        assert time.monotonic() < deadline, f"{component}: {logs}"
        time.sleep(1)


def _log(pod: str, container: str) -> str:
    """Return the log of a container that may not have started yet."""
    where = ("--namespace", _NAMESPACE, pod, "--container", container)
    command = ["kubectl", "logs", *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout


def _is_second(check: Check) -> bool:
    return f"release {_RELEASE} in namespace {_NAMESPACE}" in check.found


def test_it_is_named_and_the_first_ones_volumes_go_on(
    tenant: Tenant, install: Install
) -> None:
    kube = tenant.kube
    tenant.claim("files", XFS)
    tenant.pod("writer", "files")
    tenant.ready("writer")
    nodes = _identities(kube)

    # As it is rendered it does not even find room on the nodes.
    install()
    found = doctor.wait_for(None, "driver-name", _is_second)
    assert (found.status, found.subject) == (Status.FAILED, parts.DRIVER)
    assert "remove one of the two" in found.remedy
    assert "not what they share by name" in found.remedy
    for component in ("node", "datapath"):
        (first, *_) = _pods(kube, component)
        kube.wait_event(first, _NAMESPACE, "FailedScheduling", "free ports")

    # With ports of its own it starts, and finds that it is not alone.
    install("--set", _OTHER_PORTS)
    for pod in _pods(kube, "datapath"):
        kube.delete("Pod", pod, _NAMESPACE)
    _wait_for_log(
        kube, "node", "another process listens on", "`kubectl rbdcrypt doctor` says"
    )
    _wait_for_log(kube, "datapath", "another datapath runs on", "paths.state")
    doctor.wait_for(None, "driver-name", _is_second)

    assert _identities(kube) == nodes
    tenant.run("writer", "echo on > /data/file && sync /data/file")
    tenant.claim("more", XFS)
    tenant.pod("another", "more")
    tenant.ready("another")


def _identities(kube: Kube) -> set[tuple[str, int]]:
    """Return what runs on the nodes for the first driver."""
    return {
        (str(each["containerID"]), int(each["restartCount"]))
        for component in ("node", "datapath")
        for pod in parts.pods_of(kube, component)
        for each in pod["status"]["containerStatuses"]
    }
