# SPDX-License-Identifier: Apache-2.0
"""Who may do what: the table of the chart's README, and nothing beyond it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from tests.chart import rendered
from tests.chart.rendered import Object

CONTROLLER = {
    ("", "persistentvolumes"): "create delete get list patch watch",
    ("", "persistentvolumeclaims"): "list update watch",
    ("", "persistentvolumeclaims/status"): "patch",
    ("", "events"): "create patch",
    ("storage.k8s.io", "storageclasses"): "get list watch",
    ("storage.k8s.io", "volumeattributesclasses"): "get list watch",
    ("storage.k8s.io", "volumeattachments"): "list watch",
    ("storage.k8s.io", "volumeattachments/status"): "patch",
}
SNAPSHOTS = {
    ("snapshot.storage.k8s.io", "volumesnapshots"): "get list update watch",
    ("snapshot.storage.k8s.io", "volumesnapshotcontents"): "get list patch watch",
    ("snapshot.storage.k8s.io", "volumesnapshotcontents/status"): "patch update",
    ("snapshot.storage.k8s.io", "volumesnapshotclasses"): "get list watch",
}
NODE = {
    ("", "persistentvolumes"): "get",
    ("", "events"): "create patch",
}
LEADERS = {("coordination.k8s.io", "leases"): "create get update"}
SECRETS = {("", "secrets"): "get"}


def _granted(rules: Iterable[Object]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert (group, resource) not in found, "granted in two places"
                found[group, resource] = " ".join(sorted(rule["verbs"]))
    return found


def _role(case: str, kind: str, name: str, namespace: str | None = None) -> Object:
    return rendered.one(
        [
            each
            for each in rendered.objects(case, kind)
            if each["metadata"]["name"] == name
            and each["metadata"].get("namespace") == namespace
        ]
    )


def test_the_controller_may_do_what_its_sidecars_call() -> None:
    role = _role("minimal", "ClusterRole", "rbdcrypt-csi-controller")
    assert _granted(role["rules"]) == CONTROLLER | SNAPSHOTS


def test_without_snapshots_their_rights_are_gone() -> None:
    role = _role("no-snapshots", "ClusterRole", "rbdcrypt-csi-controller")
    assert _granted(role["rules"]) == CONTROLLER


def test_leaders_are_elected_in_the_own_namespace() -> None:
    role = _role("minimal", "Role", "rbdcrypt-csi-controller", "rbdcrypt-system")
    assert _granted(role["rules"]) == LEADERS


def test_the_node_service_reads_volumes_and_writes_events() -> None:
    role = _role("minimal", "ClusterRole", "rbdcrypt-csi-node")
    assert _granted(role["rules"]) == NODE


@pytest.mark.parametrize("case", rendered.CASES)
def test_no_rule_has_a_wildcard_or_a_right_over_rights(case: str) -> None:
    for kind in ("ClusterRole", "Role"):
        for role in rendered.objects(case, kind):
            for rule in role["rules"]:
                words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
                assert "*" not in words
                assert not words & {"escalate", "bind", "impersonate"}
                assert "rbac.authorization.k8s.io" not in words


@pytest.mark.parametrize(
    "case", [case for case in rendered.CASES if case != "everything"]
)
def test_no_secret_is_read_across_the_cluster_by_default(case: str) -> None:
    for role in rendered.objects(case, "ClusterRole"):
        assert ("", "secrets") not in _granted(role["rules"])


def test_without_namespaces_no_secret_is_read_at_all() -> None:
    for kind in ("ClusterRole", "Role"):
        for role in rendered.objects("no-snapshots", kind):
            assert ("", "secrets") not in _granted(role["rules"])


def test_secrets_are_read_where_values_say_so() -> None:
    found = [
        each
        for each in rendered.objects("minimal", "Role")
        if ("", "secrets") in _granted(each["rules"])
    ]
    role = rendered.one(found)
    assert role["metadata"]["namespace"] == "tenant-a"
    assert _granted(role["rules"]) == SECRETS
    binding = _role(
        "minimal", "RoleBinding", "rbdcrypt-csi-controller-secrets", "tenant-a"
    )
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [each["name"] for each in binding["subjects"]] == ["rbdcrypt-csi-controller"]


def test_the_node_service_reads_secrets_only_if_values_say_so() -> None:
    for case in rendered.CASES:
        bound = [
            each
            for each in rendered.objects(case, "RoleBinding")
            if any(subject["name"].endswith("-node") for subject in each["subjects"])
        ]
        assert bool(bound) is (case == "everything")


def test_names_narrow_what_is_read() -> None:
    whole = _role("everything", "ClusterRole", "encrypted-rbd-controller")
    secrets = rendered.one(
        [
            rule | {"metadata": {"name": ""}}
            for rule in whole["rules"]
            if "secrets" in rule["resources"]
        ]
    )
    assert secrets["verbs"] == ["get"]
    assert secrets["resourceNames"] == ["rbdcrypt-passphrase"]
    for namespace in ("tenant-a", "tenant-b"):
        name = "encrypted-rbd-controller-secrets"
        rules = _role("everything", "Role", name, namespace)["rules"]
        assert rules[0]["resourceNames"] == ["rbdcrypt-passphrase"]


@pytest.mark.parametrize("case", rendered.CASES)
def test_every_binding_joins_a_role_and_an_account_that_exist(case: str) -> None:
    accounts = {
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in rendered.objects(case, "ServiceAccount")
    }
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        for binding in rendered.objects(case, kind):
            reference = binding["roleRef"]
            namespace = binding["metadata"].get("namespace")
            _role(case, reference["kind"], reference["name"], namespace)
            for subject in binding["subjects"]:
                assert (subject["namespace"], subject["name"]) in accounts


@pytest.mark.parametrize("case", rendered.CASES)
def test_the_datapath_has_no_rights_and_no_token(case: str) -> None:
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        for binding in rendered.objects(case, kind):
            names = [subject["name"] for subject in binding["subjects"]]
            assert not [name for name in names if name.endswith("-datapath")]
    assert rendered.pod(case, "datapath")["automountServiceAccountToken"] is False


@pytest.mark.parametrize("case", rendered.CASES)
def test_on_nodes_the_driver_alone_has_a_token(case: str) -> None:
    spec = rendered.pod(case, "node")
    assert spec["automountServiceAccountToken"] is False
    sources = rendered.one_named(spec["volumes"], "token")["projected"]["sources"]
    assert [next(iter(each)) for each in sources] == [
        *("serviceAccountToken", "configMap", "downwardAPI"),
    ]
    for container in spec["containers"]:
        mounted = {
            each["name"]: each["mountPath"] for each in container["volumeMounts"]
        }
        own = "/var/run/secrets/kubernetes.io/serviceaccount"
        wanted = own if container["name"] == "node" else None
        assert mounted.get("token") == wanted


@pytest.mark.parametrize(
    "name", ["controller-clusterrole", "controller-role", "node-clusterrole", "_rbac"]
)
def test_every_rule_says_whom_it_is_for(name: str) -> None:
    suffix = "tpl" if name.startswith("_") else "yaml"
    lines = rendered.file(f"templates/{name}.{suffix}").splitlines()
    rules = [n for n, line in enumerate(lines) if line.startswith("  - apiGroups")]
    assert rules
    for number in rules:
        assert lines[number - 1].startswith("  # "), lines[number : number + 2]


def test_the_readme_s_table_has_every_resource_and_verb() -> None:
    readme = rendered.file("README.md").partition("### Kubernetes")[2]
    rows = [line for line in readme.splitlines() if line.startswith("| ")]
    table = "\n".join(rows)
    for (_, resource), verbs in (CONTROLLER | SNAPSHOTS | LEADERS | SECRETS).items():
        name, _, status = resource.partition("/")
        row = next(
            (
                each
                for each in rows
                if re.match(rf"\| {name}(/{status})?[ ,]", each)
                and (not status or status in each.split("|")[1])
            ),
            "",
        )
        assert row, f"{resource} is not in\n{table}"
        words = set(re.findall(r"[a-z]+", row.split("|")[2]))
        assert set(verbs.split()) <= words, row
