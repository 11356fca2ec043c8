# SPDX-License-Identifier: Apache-2.0
"""What the API server says to a role of the driver: rights, objects, clock."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Status
from csi_driver.doctor.check import examine
from csi_driver.doctor.kubernetes import Cluster
from csi_driver.domain.errors import CredentialsError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.parameters import SecretRef
from csi_driver.kube.examined import Right
from csi_driver.kube.examined import ServerInfo
from tests.unit.doctor.test_judging import NAME
from tests.unit.doctor.test_judging import PLACE
from tests.unit.doctor.test_judging import SECRETS
from tests.unit.doctor.test_judging import clusters
from tests.unit.doctor.test_judging import csi_driver
from tests.unit.doctor.test_judging import secret

NOW = dt.datetime(2026, 11, 26, 12, 0, 0, tzinfo=dt.UTC)
STORAGE = "/apis/storage.k8s.io/v1"
SNAPSHOTS = "/apis/snapshot.storage.k8s.io/v1"
SNAPSHOT_KINDS = ("volumesnapshots", "volumesnapshotclasses", "volumesnapshotcontents")
KEY = {"encryptionKey": "A" * 43 + "="}


def refused(title: str) -> ForbiddenError:
    return ForbiddenError(f"{title} may not be read: these credentials lack the right")


def resources(*names: str) -> dict[str, Any]:
    return {"kind": "APIResourceList", "resources": [{"name": each} for each in names]}


@dataclasses.dataclass
class Server:
    """An API server in memory.

    `denied` are beginnings of rights, but for those `granted`; `hidden` are paths
    that nobody sees.
    """

    objects: dict[str, Any] = dataclasses.field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    denied: set[str] = dataclasses.field(default_factory=set)
    granted: set[str] = dataclasses.field(default_factory=set)
    hidden: set[str] = dataclasses.field(default_factory=set)
    fault: DriverError | None = None
    date: dt.datetime | None = NOW
    asked: list[str] = dataclasses.field(default_factory=list)

    def server(self) -> ServerInfo:
        if self.fault is not None:
            raise self.fault
        return ServerInfo("v1.36.3", self.date)

    def look_at(self, path: str, title: str) -> Mapping[str, Any]:
        if path in self.hidden:
            raise refused(title)
        if path not in self.objects:
            message = f"{title} does not exist: the cluster does not have it"
            raise NotFoundError(message)
        found: Mapping[str, Any] = self.objects[path]
        return found

    def may(self, right: Right) -> bool:
        self.asked.append(str(right))
        if str(right) in self.granted:
            return True
        return not any(str(right).startswith(each) for each in self.denied)

    def read_secret(self, reference: SecretRef) -> dict[str, str]:
        if str(reference) not in self.secrets:
            message = f"Secret {reference} does not exist: create it"
            raise NotFoundError(message)
        return self.secrets[str(reference)]


def a_class(name: str, parameters: Mapping[str, str], **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "provisioner": NAME,
        "allowVolumeExpansion": True,
        "parameters": dict(parameters),
        **fields,
    }


@pytest.fixture
def server() -> Server:
    """Give a server that has everything as it has to be."""
    other = a_class("other", {"nonsense": "x"}, provisioner="rbd.csi.ceph.com")
    return Server(
        objects={
            f"{STORAGE}/csidrivers/{NAME}": csi_driver(),
            f"{STORAGE}/storageclasses": {
                "items": [a_class("fast", PLACE | SECRETS), other]
            },
            f"{STORAGE}/volumeattributesclasses": {"items": []},
            f"{STORAGE}/csinodes/worker-1": {
                "spec": {"drivers": [{"name": NAME, "nodeID": "worker-1"}]}
            },
            SNAPSHOTS: resources(*SNAPSHOT_KINDS),
            f"{SNAPSHOTS}/volumesnapshotclasses": {"items": []},
        },
        secrets={"vault/key": KEY},
    )


def controller(server: Server, **fields: Any) -> list[Check]:
    cluster = Cluster(server, NAME, clusters(), now=lambda: NOW, **fields)
    return list(examine(cluster.for_controller()).checks)


def amiss(found: list[Check]) -> list[tuple[str, str, str]]:
    return [
        (each.status.value, each.name, each.subject)
        for each in found
        if each.status is not Status.OK
    ]


def the(found: list[Check], name: str) -> Check:
    (check,) = [each for each in found if each.name == name]
    return check


def test_a_controller_in_order(server: Server) -> None:
    found = controller(server)
    assert amiss(found) == []
    assert [each.name for each in found] == [
        *("api-server", "clock", "rights", "csi-driver", "storage-class", "secret"),
        "snapshot-class",
    ]
    assert the(found, "secret").found == "exists and holds a passphrase or key"
    assert KEY["encryptionKey"] not in str(found)


def test_a_node_in_order(server: Server) -> None:
    cluster = Cluster(server, NAME, now=lambda: NOW)
    found = list(examine(cluster.for_node("worker-1")).checks)
    assert amiss(found) == []
    assert the(found, "csi-node").subject == "worker-1"


def test_where_nothing_answers_nothing_more_is_asked(server: Server) -> None:
    server.fault = UnavailableError("the API server cannot be reached")
    found = controller(server)
    assert amiss(found) == [("failed", "api-server", "")]
    assert not server.asked


def test_an_expired_token_is_said_to_be_one(server: Server) -> None:
    server.fault = CredentialsError("the API server does not accept the credentials")
    hour = dt.timedelta(hours=1)
    (check,) = controller(server, token_ends=lambda: NOW - hour)
    assert check.status is Status.FAILED
    assert "the token expired at 2026-11-26 11:00:00 UTC" in check.remedy
    (check,) = controller(server, token_ends=lambda: NOW + hour)
    assert "expired" not in check.remedy
    assert "ServiceAccount was deleted" in check.remedy
    assert "delete the pod" in check.remedy
    (check,) = controller(server)
    assert (check.status, check.remedy) == (Status.FAILED, "")


def test_a_version_that_may_not_be_read_is_no_matter_of_tokens(server: Server) -> None:
    server.fault = ForbiddenError("the version may not be read: the right is lacking")
    (check,) = controller(server, token_ends=lambda: NOW)
    assert check.status is Status.FAILED
    assert "token" not in str(check)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4, ""), (-4, ""), (60, "60 s behind"), (-60, "60 s ahead of")],
)
def test_clocks(server: Server, seconds: int, text: str) -> None:
    server.date = NOW + dt.timedelta(seconds=seconds)
    check = the(controller(server), "clock")
    assert check.status is (Status.WARNING if text else Status.OK)
    assert text in check.found


def test_a_server_without_a_clock_is_not_judged(server: Server) -> None:
    server.date = None
    assert "clock" not in {each.name for each in controller(server)}


def test_each_right_that_is_missing_is_named(server: Server) -> None:
    server.denied = {"get persistentvolumes", "create events"}
    assert amiss(controller(server)) == [
        ("warning", "rights", "get persistentvolumes"),
        ("warning", "rights", "create events"),
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"{STORAGE}/csidrivers/{NAME}", "csi-driver"),
        (f"{STORAGE}/storageclasses", "storage-class"),
        (f"{SNAPSHOTS}/volumesnapshotclasses", "snapshot-class"),
        (f"{STORAGE}/volumeattributesclasses", "attributes-class"),
    ],
)
def test_what_may_not_be_looked_at_is_left_to_who_may(
    server: Server, path: str, name: str
) -> None:
    server.hidden = {path}
    found = [each for each in controller(server) if each.status is not Status.OK]
    (check,) = found
    assert (check.name, check.status) == (name, Status.WARNING)
    assert check.found.startswith("not looked at: ")
    assert "kubectl rbdcrypt doctor" in check.remedy


def test_no_class_at_all(server: Server) -> None:
    server.objects[f"{STORAGE}/storageclasses"] = {"items": []}
    assert amiss(controller(server)) == [("warning", "storage-class", "")]


def test_a_class_with_a_misspelt_parameter(server: Server) -> None:
    bad = a_class("bad", PLACE | SECRETS | {"encrytped": "false"})
    server.objects[f"{STORAGE}/storageclasses"]["items"].append(bad)
    assert amiss(controller(server)) == [("failed", "storage-class", "bad")]


def test_a_fixed_secret_that_is_missing_or_malformed(server: Server) -> None:
    server.secrets.clear()
    check = the(controller(server), "secret")
    assert (check.status, check.subject) == (Status.FAILED, "vault/key")
    assert "does not exist" in check.found
    server.secrets["vault/key"] = {"encryptionPassphrase": "hunter2\n"}
    check = the(controller(server), "secret")
    assert "ends in a newline" in check.found
    assert "hunter2" not in str(check)
    server.secrets["vault/key"] = {"password": "hunter2"}
    check = the(controller(server), "secret")
    assert "holds neither encryptionPassphrase nor encryptionKey" in check.found


def test_secrets_that_the_sidecars_may_not_read(server: Server) -> None:
    server.denied = {"get secrets"}
    check = the(controller(server), "secret")
    assert check.status is Status.FAILED
    assert "csi-provisioner may not read Secrets in namespace vault" in check.found
    assert "add vault to secrets.namespaces" in check.remedy
    assert "get secrets key in namespace vault" in server.asked


@pytest.fixture
def templated(server: Server) -> Server:
    """Give a server whose class takes its Secrets from the claims' namespaces."""
    parameters = dict(PLACE)
    for purpose in ("provisioner-secret", "node-stage-secret"):
        parameters |= secret(purpose, "key", "${pvc.namespace}")
    items = [a_class("fast", parameters)]
    server.objects[f"{STORAGE}/storageclasses"] = {"items": items}
    server.objects[CLAIMS] = page(claim("shop"), claim("bank", "other"))
    return server


CLAIMS = "/api/v1/persistentvolumeclaims?limit=250"


def claim(namespace: str, storage_class: str = "fast") -> dict[str, Any]:
    spec = {"storageClassName": storage_class}
    return {"metadata": {"namespace": namespace}, "spec": spec}


def page(*items: dict[str, Any], more: str = "") -> dict[str, Any]:
    return {"items": list(items), "metadata": {"continue": more}}


def test_secrets_in_every_namespace(templated: Server) -> None:
    check = the(controller(templated), "secret")
    assert check.status is Status.OK
    assert check.found == "csi-provisioner may read Secrets in every namespace"
    assert "get secrets key" in templated.asked


def test_secrets_where_claims_are(templated: Server) -> None:
    templated.denied = {"get secrets"}
    templated.granted = {"get secrets key in namespace shop"}
    check = the(controller(templated), "secret")
    assert check.status is Status.OK
    assert "in shop, where claims are" in check.found
    templated.granted = set()
    check = the(controller(templated), "secret")
    assert check.status is Status.FAILED
    assert check.remedy == "add shop to secrets.namespaces of the chart"


def test_claims_are_read_page_by_page(templated: Server) -> None:
    templated.denied = {"get secrets"}
    templated.objects[CLAIMS] = page(more="a/b==")
    templated.objects[f"{CLAIMS}&continue=a/b%3D%3D"] = page(claim("late"))
    assert "add late to" in the(controller(templated), "secret").remedy


def test_without_claims_nothing_is_wrong(templated: Server) -> None:
    templated.denied = {"get secrets"}
    templated.objects[CLAIMS] = page()
    check = the(controller(templated), "secret")
    assert check.status is Status.OK
    assert "in no other namespaces than those of secrets.namespaces" in check.found


def test_a_secret_that_the_driver_reads_itself(server: Server) -> None:
    own = {"passphraseSecretName": "own", "passphraseSecretNamespace": "vault"}
    items = [a_class("fast", PLACE | own)]
    server.objects[f"{STORAGE}/storageclasses"] = {"items": items}
    server.denied = {"get secrets"}
    check = the(controller(server), "secret")
    assert "the driver may not read Secrets in namespace vault" in check.found


def test_one_secret_of_many_classes_is_looked_at_once(server: Server) -> None:
    again = a_class("slow", PLACE | SECRETS)
    server.objects[f"{STORAGE}/storageclasses"]["items"].append(again)
    assert the(controller(server), "secret").status is Status.OK


def test_a_cluster_without_snapshots(server: Server) -> None:
    del server.objects[SNAPSHOTS]
    check = the(controller(server), "snapshot-class")
    assert check.status is Status.WARNING
    assert "CRDs" in check.remedy


@pytest.mark.parametrize("missing", SNAPSHOT_KINDS)
def test_each_crd_of_snapshots_that_is_missing_is_named(
    server: Server, missing: str
) -> None:
    there = [each for each in SNAPSHOT_KINDS if each != missing]
    server.objects[SNAPSHOTS] = resources(*there)
    server.objects.pop(f"{SNAPSHOTS}/{missing}", None)
    check = the(controller(server), "snapshot-class")
    assert check.status is Status.FAILED
    assert f" {missing}.snapshot.storage.k8s.io is missing" in check.found
    assert not any(f"{each}.snap" in check.found for each in there)
    assert "CRDs" in check.remedy


def test_classes_of_snapshots_and_attributes(server: Server) -> None:
    bad = {"metadata": {"name": "s"}, "driver": NAME, "parameters": {"x": "y"}}
    items = [bad, {**bad, "driver": "other"}]
    server.objects[f"{SNAPSHOTS}/volumesnapshotclasses"] = {"items": items}
    slow = {"metadata": {"name": "a"}, "driverName": NAME, "parameters": {"x": "y"}}
    server.objects[f"{STORAGE}/volumeattributesclasses"] = {"items": [slow]}
    assert amiss(controller(server)) == [
        ("failed", "snapshot-class", "s"),
        ("failed", "attributes-class", "a"),
    ]


def test_a_cluster_without_attributes_classes(server: Server) -> None:
    del server.objects[f"{STORAGE}/volumeattributesclasses"]
    assert amiss(controller(server)) == [("warning", "attributes-class", "")]


def test_a_driver_that_nobody_declared(server: Server) -> None:
    del server.objects[f"{STORAGE}/csidrivers/{NAME}"]
    assert amiss(controller(server)) == [("failed", "csi-driver", NAME)]
