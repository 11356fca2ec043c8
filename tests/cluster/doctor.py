# SPDX-License-Identifier: Apache-2.0
"""The doctor's lines on the cluster: of all pods by kubectl, or of one pod's container.

What is wrong there is made by the tests; this only asks and reads.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any
from typing import Final

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Status
from tests.cluster import parts
from tests.cluster.kube import PATIENCE
from tests.cluster.kube import Kube

NOBODY: Final = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
"""Where kubelet tells a container that the API server is, and nobody listens."""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `kubectl rbdcrypt doctor`, whatever its status."""
    return subprocess.run(
        ["kubectl", "rbdcrypt", "doctor", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def troubles(component: str | None) -> list[Check]:
    """Return what failed in the pods of a component; from outside without one."""
    return [each for each in _checks(component) if each.status is Status.FAILED]


def wait_for(
    component: str | None,
    name: str,
    holds: Callable[[Check], bool],
    seconds: float = PATIENCE,
) -> Check:
    """Ask all pods again and again until a check of a component is as it should be."""
    deadline = time.monotonic() + seconds
    while True:
        found = [each for each in _checks(component) if each.name == name]
        for each in found:
            if holds(each):
                return each
        assert time.monotonic() < deadline, f"{component}: {found}"
        time.sleep(1)


def in_pod(kube: Kube, component: str, **variables: str) -> list[Check]:
    """Ask one pod of a component, some variables being others than its own."""
    pod = parts.pods_of(kube, component)[0]["metadata"]["name"]
    settings = " ".join(f"{name}={text}" for name, text in variables.items())
    script = f"{settings} rbdcrypt-csi doctor --output json 2>/dev/null"
    _, output = kube.try_run(pod, parts.NAMESPACE, script, component)
    return _read(json.loads(output.partition("\ncommand terminated")[0]))


def the(checks: list[Check], name: str) -> Check:
    """Return the only check of a name."""
    (found,) = (each for each in checks if each.name == name)
    return found


def _checks(component: str | None) -> list[Check]:
    done = run("--output", "json")
    assert done.stdout, done.stderr
    return [
        check
        for place in json.loads(done.stdout)["places"]
        if place["component"] == component
        for check in _read(place)
    ]


def _read(answer: Any) -> list[Check]:
    return [Check.from_json_object(each) for each in answer["checks"]]
