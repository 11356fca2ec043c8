# SPDX-License-Identifier: Apache-2.0
"""What pods may do to their machine, and how they are kept and found."""

from __future__ import annotations

import re

import pytest

from csi_driver.datapath import supervisor
from csi_driver.images.foreign import SILENCE_SECONDS
from csi_driver.rpc import server
from tests.chart import rendered
from tests.chart.rendered import Object

PRIVILEGED = {("node", "node"), ("datapath", "datapath")}
"""Component and container of all that have more than a process needs."""


@pytest.mark.parametrize("case", rendered.CASES)
def test_every_container_has_a_read_only_root_and_a_seccomp_profile(case: str) -> None:
    for _, spec, container in rendered.containers(case):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        profile = spec["securityContext"]["seccompProfile"]
        assert profile == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("case", rendered.CASES)
def test_only_what_mounts_and_attaches_is_privileged(case: str) -> None:
    for component, _, container in rendered.containers(case):
        context = container["securityContext"]
        if (component, container["name"]) in PRIVILEGED:
            assert context["privileged"] is True
        else:
            assert "privileged" not in context
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("case", rendered.CASES)
def test_the_controller_is_not_root_and_keeps_to_its_pod(case: str) -> None:
    spec = rendered.pod(case, "controller")
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] > 0
    assert spec["hostNetwork"] is False
    assert not [each for each in spec["volumes"] if "hostPath" in each]


def test_nodes_share_their_network_and_no_processes() -> None:
    """The kernel answers NBD over netlink in its first network namespace alone."""
    for name in ("node", "datapath"):
        spec = rendered.pod("minimal", name)
        assert spec["hostNetwork"] is True
        assert not spec.get("hostIPC")


@pytest.mark.parametrize("case", rendered.CASES)
def test_every_pod_has_processes_of_its_own(case: str) -> None:
    """In the node's PID namespace a datapath would believe that workers outlive it."""
    for name in rendered.COMPONENTS:
        assert "hostPID" not in rendered.pod(case, name)


@pytest.mark.parametrize("case", rendered.CASES)
def test_no_service_can_look_like_a_setting(case: str) -> None:
    for name in rendered.COMPONENTS:
        assert rendered.pod(case, name)["enableServiceLinks"] is False


@pytest.mark.parametrize("case", rendered.CASES)
def test_every_container_says_what_it_needs(case: str) -> None:
    for _, _, container in rendered.containers(case):
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}


def test_nothing_but_requests_bounds_what_serves_io() -> None:
    """A datapath that is killed for its memory takes its volumes' I/O along."""
    assert rendered.driver("minimal", "datapath")["resources"]["limits"] == {}


@pytest.mark.parametrize("case", rendered.CASES)
def test_every_image_has_a_version(case: str) -> None:
    for _, _, container in rendered.containers(case):
        name, _, tag = container["image"].rpartition(":")
        assert name
        assert "/" not in tag
        assert tag != "latest"


def test_a_digest_counts_more_than_a_tag() -> None:
    image = rendered.driver("everything", "node")["image"]
    assert re.fullmatch(
        r"registry\.example\.org/rbdcrypt/rbdcrypt-csi@sha256:[0-9a-f]{64}", image
    )


def test_a_pull_policy_holds_for_all_that_have_none_of_their_own() -> None:
    for _, _, container in rendered.containers("everything"):
        own = container["name"] in rendered.COMPONENTS
        assert container["imagePullPolicy"] == ("IfNotPresent" if own else "Always")


@pytest.mark.parametrize("case", rendered.CASES)
def test_an_upgrade_leaves_the_datapath_alone(case: str) -> None:
    strategy = rendered.component(case, "datapath")["spec"]["updateStrategy"]
    assert strategy == {"type": "OnDelete"}


@pytest.mark.parametrize("case", rendered.CASES)
def test_node_service_and_datapath_run_on_the_same_nodes(case: str) -> None:
    def placement(name: str) -> Object:
        spec = rendered.pod(case, name)
        keys = ("nodeSelector", "tolerations", "affinity")
        return {key: spec.get(key) for key in keys}

    assert placement("node") == placement("datapath")
    assert placement("node")["tolerations"] == [{"operator": "Exists"}]


@pytest.mark.parametrize("case", rendered.CASES)
def test_only_the_node_service_s_mounts_reach_the_machine(case: str) -> None:
    found = {
        (component, mount["name"]): mount["mountPropagation"]
        for component, _, container in rendered.containers(case)
        for mount in container["volumeMounts"]
        if "mountPropagation" in mount
    }
    assert found == {
        ("node", "plugins"): "Bidirectional",
        ("node", "pods"): "Bidirectional",
        ("datapath", "plugins"): "HostToContainer",
        ("datapath", "pods"): "HostToContainer",
    }


@pytest.mark.parametrize("case", rendered.CASES)
def test_kubelet_s_directories_have_the_same_paths_inside(case: str) -> None:
    """The paths of CSI calls are those of the machine."""
    for name in ("node", "datapath"):
        volumes = rendered.pod(case, name)["volumes"]
        mounts = rendered.driver(case, name)["volumeMounts"]
        for which in ("plugins", "pods", "state", "run", "dev"):
            outside = rendered.one_named(volumes, which)["hostPath"]["path"]
            inside = rendered.one_named(mounts, which)
            assert inside["mountPath"] == outside
            assert bool(inside.get("readOnly")) is (
                name == "datapath" and which in {"plugins", "pods"}
            )


@pytest.mark.parametrize("case", rendered.CASES)
def test_every_volume_is_used_and_every_mount_has_one(case: str) -> None:
    for name in rendered.COMPONENTS:
        spec = rendered.pod(case, name)
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounts = {
            mount["name"]
            for container in spec["containers"]
            for mount in container["volumeMounts"]
        }
        assert volumes == mounts


def test_the_readme_explains_every_path_of_the_machine() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in rendered.file("README.md").splitlines()
        if line.startswith("| `/")
    ]
    told = {
        (component, row[0].strip("`"))
        for row in rows
        for component, cell in (("node", row[1]), ("datapath", row[2]))
        if cell != "no"
    }
    found = {
        (component, volume["hostPath"]["path"])
        for component in rendered.COMPONENTS
        for volume in rendered.pod("minimal", component)["volumes"]
        if "hostPath" in volume
    }
    assert told == found


@pytest.mark.parametrize("case", rendered.CASES)
def test_keys_are_files_that_group_and_others_cannot_write(case: str) -> None:
    for name in rendered.COMPONENTS:
        spec = rendered.pod(case, name)
        projected = rendered.one_named(spec["volumes"], "config")["projected"]
        assert projected["defaultMode"] == 0o440
        for container in spec["containers"]:
            for variable in container.get("env", []):
                assert "secretKeyRef" not in variable.get("valueFrom", {})


def test_pods_get_the_time_that_calls_and_volumes_need() -> None:
    def grace(name: str) -> int:
        found: int = rendered.pod("minimal", name)["terminationGracePeriodSeconds"]
        return found

    assert grace("controller") > server.GRACE
    assert grace("node") > server.GRACE
    assert grace("datapath") > supervisor.SHUTDOWN_SECONDS


def test_a_flatten_by_another_client_gets_hours_before_kubelet_kills_it() -> None:
    """The worker that carries it out is waited for without a bound."""
    grace = rendered.pod("minimal", "datapath")["terminationGracePeriodSeconds"]
    assert grace >= 4 * 3600
    own = rendered.schema()["properties"]["datapath"]["properties"]
    least = own["terminationGracePeriodSeconds"]["minimum"]
    # Even the shortest outlasts the last word of a flatten after all is closed.
    assert least >= supervisor.SHUTDOWN_SECONDS + SILENCE_SECONDS


def test_a_controller_that_can_be_away_has_a_budget() -> None:
    budget = rendered.one(rendered.objects("minimal", "PodDisruptionBudget"))
    selector = rendered.component("minimal", "controller")["spec"]["selector"]
    assert budget["spec"] == {
        "maxUnavailable": 1,
        "selector": selector,
        # What does not work anyway, as without Ceph, must not hold up a drain.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    # With one replica a budget could only stop every drain, or nothing.
    assert not rendered.objects("no-snapshots", "PodDisruptionBudget")


def test_controllers_avoid_sharing_a_node() -> None:
    affinity = rendered.pod("minimal", "controller")["affinity"]["podAntiAffinity"]
    (term,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"


def test_pods_outlive_others_on_a_full_node() -> None:
    def priority(name: str) -> str:
        found: str = rendered.pod("minimal", name)["priorityClassName"]
        return found

    assert priority("controller") == "system-cluster-critical"
    assert priority("node") == priority("datapath") == "system-node-critical"


def test_a_policy_closes_the_controller() -> None:
    policy = rendered.one(rendered.objects("upstream-sidecars", "NetworkPolicy"))
    selector = rendered.component("upstream-sidecars", "controller")["spec"]["selector"]
    assert policy["spec"]["podSelector"] == selector
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["ingress"] == []


def test_a_policy_lets_out_to_names_the_api_server_and_ceph() -> None:
    policy = rendered.one(rendered.objects("everything", "NetworkPolicy"))
    names, api, ceph = policy["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert [port["port"] for port in api["ports"]] == [6443]
    assert [peer["ipBlock"]["cidr"] for peer in api["to"]] == ["192.0.2.10/32"]
    assert [port["port"] for port in ceph["ports"]] == [3300, 6789, 6800]
    assert ceph["ports"][-1]["endPort"] == 7568
    (inward,) = policy["spec"]["ingress"]
    assert [port["port"] for port in inward["ports"]] == [9680, 9683]


def test_an_installation_without_a_policy_is_possible() -> None:
    assert not rendered.objects("minimal", "NetworkPolicy")
