# SPDX-License-Identifier: Apache-2.0
"""An API server that a pod does not reach, or that does not take its token any more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Status
from tests.cluster import doctor
from tests.cluster import parts
from tests.cluster import tokens
from tests.cluster.kube import Kube
from tests.cluster.kube import Object
from tests.cluster.kube import without_identity
from tests.cluster.release import install
from tests.cluster.tenant import PER_PVC_CLASS
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.tenant import from_claim

_ACCOUNT: Final = "rbdcrypt-csi-controller"
_IMAGE: Final = "localhost/rbdcrypt-csi:dev"
_MOUNTED: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_REFUSED: Final = "the API server at https://127.0.0.1:1 refuses the connection"
_WHERE_TO_LOOK: Final = (
    "look whether it runs",
    "kube-proxy",
    "networkPolicy.apiServer",
)


def _failed(check: Check) -> bool:
    return check.status is Status.FAILED


@pytest.mark.parametrize("component", ["controller", "node"])
def test_an_address_where_nobody_listens_is_named_with_where_to_look(
    kube: Kube, component: str
) -> None:
    checks = doctor.in_pod(kube, component, **doctor.NOBODY)
    found = doctor.the(checks, "api-server")
    assert found.status is Status.FAILED
    assert _REFUSED in found.found
    assert all(each in found.found for each in _WHERE_TO_LOOK)
    # What needs no API server is looked at all the same, and nothing that needs it.
    assert doctor.the(checks, "ceph-cluster").status is Status.OK
    assert not {"rights", "csi-node", "storage-class"} & {each.name for each in checks}


def test_a_driver_cut_off_from_the_api_server_says_so_on_the_claim_and_recovers(
    tenant: Tenant, installed: None
) -> None:
    for name in ("source", "copy"):
        tenant.secret(name)
    tenant.claim("source", XFS, storage_class=PER_PVC_CLASS)
    volume = tenant.bound("source")["metadata"]["name"]
    # The driver's container alone: its sidecars go on, so that claims are worked at.
    variables = enumerate(doctor.NOBODY.items())
    install(
        *(
            f"--set-string=controller.extraEnv[{number}].{field}={text}"
            for number, (name, value) in variables
            for field, text in (("name", name), ("value", value))
        )
    )
    parts.wait_until_ready(tenant.kube, "controller")
    doctor.wait_for("controller", "api-server", lambda each: _REFUSED in each.found)
    copied = from_claim("source")
    tenant.claim("copy", XFS, storage_class=PER_PVC_CLASS, source=copied)
    said = (f"PersistentVolume {volume}", _REFUSED, *_WHERE_TO_LOOK)
    tenant.kube.wait_event("copy", tenant.namespace, "ProvisioningFailed", *said)
    install()
    tenant.bound("copy")


def test_the_plugin_says_which_server_it_does_not_reach(tmp_path: Path) -> None:
    done = _plugin_at(tmp_path, "https://127.0.0.1:1", "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:1 was refused" in done.stderr
    assert "is the cluster of this context up" in done.stderr


def test_the_plugin_says_that_its_users_token_is_over(tmp_path: Path) -> None:
    token = tokens.expired(tokens.new(_ACCOUNT, parts.NAMESPACE))
    done = _plugin_at(tmp_path, _server(), token)
    assert (done.returncode, done.stdout) == (1, "")
    assert "log in anew" in done.stderr
    assert token not in done.stderr


def test_a_token_that_has_expired_is_said_to_be_one(tenant: Tenant) -> None:
    token = tokens.expired(tokens.new(_ACCOUNT, parts.NAMESPACE))
    said = _doctor_with(tenant, token)
    assert "the API server does not accept the driver's credentials" in said
    assert "the token expired at 20" in said
    assert "look whether this node's kubelet runs, or restart the pod" in said
    assert token not in said


def test_a_token_that_is_valid_is_accepted(tenant: Tenant) -> None:
    said = _doctor_with(tenant, tokens.new(_ACCOUNT, parts.NAMESPACE))
    assert "the credentials are valid" in said


@pytest.fixture
def account(kube: Kube) -> Iterator[Object]:
    """Give the controller's ServiceAccount; it and its pods are there afterwards."""
    found = without_identity(kube.get("ServiceAccount", _ACCOUNT, parts.NAMESPACE))
    yield found
    kube.apply(found)
    parts.replace(kube, "controller")


def test_a_deleted_service_account_is_suspected_and_what_is_said_helps(
    tenant: Tenant, account: Object
) -> None:
    kube = tenant.kube
    kube.delete("ServiceAccount", _ACCOUNT, parts.NAMESPACE)
    found = doctor.wait_for("controller", "api-server", _failed)
    assert "does not accept the driver's credentials" in found.found
    assert "its ServiceAccount was deleted, or made anew" in found.remedy
    assert "delete the pod" in found.remedy
    # As it says; a new account alone is no help to the pods of the old one.
    kube.apply(account)
    found = doctor.wait_for("controller", "api-server", _failed)
    parts.replace(kube, "controller")
    assert doctor.troubles("controller") == []
    tenant.claim("files", XFS)
    tenant.bound("files")


def _doctor_with(tenant: Tenant, token: str) -> str:
    """Run the doctor in a pod of its own, whose token is not kubelet's."""
    tenant.apply("Secret", "token", stringData={"token": token})
    mounted = [
        {"secret": {"name": "token"}},
        {"configMap": {"name": "kube-root-ca.crt"}},
    ]
    container = {
        "name": "doctor",
        "image": _IMAGE,
        "imagePullPolicy": "Never",
        "args": ["doctor", "--role", "controller", "--log-level", "error"],
        "volumeMounts": [{"name": "account", "mountPath": _MOUNTED}],
    }
    spec = {
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "account", "projected": {"sources": mounted}}],
    }
    tenant.apply("Pod", "doctor", spec=spec)
    ended = ("Succeeded", "Failed")
    tenant.kube.wait(
        "Pod", "doctor", tenant.namespace, lambda pod: pod["status"]["phase"] in ended
    )
    said = tenant.kube.logs("doctor", tenant.namespace, "doctor")
    (line,) = (each for each in said.splitlines() if " api-server " in each)
    return line


def _server() -> str:
    """Return the address of the API server."""
    words = ("config", "view", "--output=jsonpath={.clusters[0].cluster.server}")
    done = subprocess.run(
        ["kubectl", *words], capture_output=True, text=True, check=True
    )
    return done.stdout


def _plugin_at(
    directory: Path, server: str, token: str
) -> subprocess.CompletedProcess[str]:
    """Run the plugin's doctor with a kubeconfig that has a server and a token."""
    path = directory / "kubeconfig"
    for words in (
        ("set-cluster", "there", f"--server={server}", "--insecure-skip-tls-verify"),
        ("set-credentials", "somebody", f"--token={token}"),
        ("set-context", "it", "--cluster=there", "--user=somebody"),
        ("use-context", "it"),
    ):
        command = ["kubectl", "config", f"--kubeconfig={path}", *words]
        subprocess.run(command, capture_output=True, check=True)
    return doctor.run(f"--kubeconfig={path}")
