# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt doctor`: the doctors of the pods, and what is seen outside."""

from __future__ import annotations

import json
import subprocess
from typing import Any
from typing import Final

import pytest

from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Topic
from tests.unit.plugin.cluster import CONTROLLER
from tests.unit.plugin.cluster import DRIVER
from tests.unit.plugin.cluster import HOME
from tests.unit.plugin.cluster import IMAGE
from tests.unit.plugin.cluster import Cluster

GOOD: Final = Topic("librbd").ok("1.18.0, with LUKS")
ELECTING: Final = [{"name": "csi-attacher", "args": ["--leader-election"]}]


def report(*checks: Check, version: str = "0.1.0") -> dict[str, Any]:
    return {
        "role": "node",
        "version": version,
        "ok": True,
        "checks": [each.to_json_object() for each in (GOOD, *checks)],
    }


@pytest.fixture
def whole(cluster: Cluster) -> Cluster:
    """Give a cluster with one node, in which everything is in order."""
    cluster.driver_pod("node-a", "node", nodeName="worker-1")
    cluster.driver_pod("datapath-a", "datapath", nodeName="worker-1")
    csi_node(cluster, "worker-1")
    cluster.answers("doctor", report())
    return cluster


def csi_node(cluster: Cluster, node: str, *names: str) -> None:
    drivers = [{"name": each, "nodeID": node} for each in names or (DRIVER,)]
    cluster.add("CSINode", node, spec={"drivers": drivers})


def amiss(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str, str]]:
    """Return what is not in order in the JSON of a diagnosis."""
    found = json.loads(done.stdout)
    assert found["ok"] is (done.returncode == 0)
    return [
        (check["status"], check["check"], check["subject"])
        for place in found["places"]
        for check in place["checks"]
        if check["status"] != "ok"
    ]


def test_everything_in_order(whole: Cluster) -> None:
    done = whole.run("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    first, *others = done.stdout.splitlines()
    assert first.startswith("from outside: ")
    assert others == [
        f"controller {HOME}/{CONTROLLER}, version 0.1.0: 1 of 1 ok",
        f"node {HOME}/node-a on worker-1, version 0.1.0: 1 of 1 ok",
        f"datapath {HOME}/datapath-a on worker-1, version 0.1.0: 1 of 1 ok",
    ]
    commands = sorted(each[1:3] for each in whole.execs)
    assert commands == [
        ["doctor", "--role=controller"],
        ["doctor", "--role=datapath"],
        ["doctor", "--role=node"],
    ]


def test_verbose_shows_what_is_in_order(whole: Cluster) -> None:
    done = whole.run("doctor", "-v")
    assert "  ok       pods  controller: 1 ready" in done.stdout.splitlines()
    assert "  ok       librbd  1.18.0, with LUKS" in done.stdout.splitlines()


def test_the_diagnosis_for_programs(whole: Cluster) -> None:
    done = whole.run("doctor", "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["kind"], found["ok"]) == ("DoctorReport", True)
    outside, controller, node, _ = found["places"]
    assert (outside["pod"], outside["version"]) == (None, None)
    assert controller["pod"] == CONTROLLER
    assert (node["component"], node["node"], node["version"]) == (
        *("node", "worker-1", "0.1.0"),
    )
    assert node["checks"] == [GOOD.to_json_object()]


def test_what_a_pod_finds_is_shown_with_what_to_do(whole: Cluster) -> None:
    failed = Topic("tools").failed("mkfs.xfs is missing", "install xfsprogs")
    whole.answers("doctor", report(failed), pod="node-a", status=1)
    done = whole.run("doctor")
    assert done.returncode == 1
    assert "  failed   tools  mkfs.xfs is missing; install xfsprogs" in done.stdout
    assert amiss(whole.run("doctor", "-o", "json")) == [("failed", "tools", "")]


def test_a_warning_alone_is_no_failure(whole: Cluster) -> None:
    warning = Topic("ext4-growth").warning("a mounted ext4 cannot grow")
    whole.answers("doctor", report(warning), pod="node-a")
    done = whole.run("doctor")
    assert done.returncode == 0
    assert "warning  ext4-growth" in done.stdout


def test_pods_that_are_not_ready(whole: Cluster) -> None:
    crash = {"waiting": {"reason": "CrashLoopBackOff"}}
    whole.driver_pod("node-b", "node", ready=False, state=crash, nodeName="worker-2")
    done = whole.run("doctor", "-o", "json")
    found = amiss(done)
    assert ("failed", "pods", f"{HOME}/node-b") in found
    # kubelet there knows nothing of the driver, of course.
    assert ("failed", "csi-node", "worker-2") in found
    # No command is run in it.
    assert "node-b" not in [
        word for each in whole.calls if "exec" in each for word in each
    ]


def test_a_component_that_is_absent(cluster: Cluster) -> None:
    cluster.answers("doctor", report())
    assert amiss(cluster.run("doctor", "-o", "json")) == [
        ("failed", "pods", "node"),
        ("failed", "pods", "datapath"),
    ]


def test_a_controller_that_does_not_run_does_not_hide_the_nodes(
    whole: Cluster,
) -> None:
    whole.remove("Pod")
    crash = {"waiting": {"reason": "ImagePullBackOff"}}
    whole.driver_pod(ready=False, state=crash)
    whole.driver_pod("node-a", "node", nodeName="worker-1")
    whole.driver_pod("datapath-a", "datapath", nodeName="worker-1")
    done = whole.run("doctor", "-o", "json")
    assert amiss(done) == [("failed", "pods", f"{HOME}/{CONTROLLER}")]
    assert "ImagePullBackOff" in done.stdout
    assert len(whole.execs) == 2


def test_a_datapath_that_is_older_than_its_node(whole: Cluster) -> None:
    whole.driver_pod("datapath-b", "datapath", nodeName="worker-2", image="driver:old")
    whole.driver_pod("node-b", "node", nodeName="worker-2")
    csi_node(whole, "worker-2")
    done = whole.run("doctor", "-o", "json")
    assert amiss(done) == [("warning", "images", "worker-2")]
    assert f"the datapath runs driver:old, the node service {IMAGE}" in done.stdout
    assert "drain the node" in done.stdout


def test_an_upgrade_in_its_midst(whole: Cluster) -> None:
    whole.driver_pod("other", image="driver:new", others=ELECTING)
    found = amiss(whole.run("doctor", "-o", "json"))
    assert ("warning", "images", "") in found


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["--leader-election"], "ok"),
        (["--leader-election=true"], "ok"),
        (["--leader-election=false"], "failed"),
        ([], "failed"),
    ],
)
def test_two_controllers_have_to_elect_a_leader(
    whole: Cluster, args: list[str], status: str
) -> None:
    whole.remove("Pod")
    sidecar = {"name": "csi-attacher", "args": args}
    for name in ("one", "two"):
        whole.driver_pod(name, others=[sidecar, {"name": "logger"}])
    whole.driver_pod("node-a", "node", nodeName="worker-1")
    whole.driver_pod("datapath-a", "datapath", nodeName="worker-1")
    done = whole.run("doctor", "-o", "json")
    wanted = [("failed", "leader-election", "")] if status == "failed" else []
    assert amiss(done) == wanted
    assert ("csi-attacher elect no leader" in done.stdout) is (status == "failed")


def test_another_driver_of_the_same_name(whole: Cluster) -> None:
    whole.driver_pod("x", "node", namespace="old", release="legacy")
    done = whole.run("doctor", "-o", "json", "--driver-namespace", HOME)
    assert amiss(done) == [("failed", "driver-name", DRIVER)]
    assert "release legacy in namespace old" in done.stdout


def test_another_driver_of_another_name_is_none_of_ours(whole: Cluster) -> None:
    name = [{"name": "RBDCRYPT_DRIVER_NAME", "value": "fast.example.com"}]
    whole.driver_pod("x", "node", namespace="fast", release="fast", env=name)
    done = whole.run("doctor", "-o", "json")
    assert amiss(done) == []


def test_objects_of_the_cluster(whole: Cluster) -> None:
    whole.remove("CSIDriver")
    whole.remove("CSINode")
    whole.csi_driver(storageCapacity=True)
    csi_node(whole, "worker-1", "rbd.csi.ceph.com")
    assert amiss(whole.run("doctor", "-o", "json")) == [
        ("warning", "csi-driver", DRIVER),
        ("failed", "csi-node", "worker-1"),
    ]


def test_what_the_driver_may_not_see_the_user_may(whole: Cluster) -> None:
    left = "not looked at: it may not be read"
    checks = (
        Topic("csi-node", "worker-1").warning(left),
        Topic("storage-class").warning(left),
    )
    whole.answers("doctor", report(*checks), pod="node-a")
    assert amiss(whole.run("doctor", "-o", "json")) == [
        ("warning", "storage-class", "")
    ]
    text = "Error from server (Forbidden): csidrivers is forbidden: User"
    whole.refuse = {"csidrivers": text}
    found = amiss(whole.run("doctor", "-o", "json", "--driver-namespace", HOME))
    assert ("warning", "objects", "") in found
    assert ("warning", "csi-node", "worker-1") in found


def test_one_node_alone(whole: Cluster) -> None:
    whole.driver_pod("node-b", "node", nodeName="worker-2")
    csi_node(whole, "worker-2")
    done = whole.run("doctor", "--node", "worker-1", "-o", "json")
    assert amiss(done) == []
    pods = [each["pod"] for each in json.loads(done.stdout)["places"]]
    assert pods == [None, "node-a", "datapath-a"]
    done = whole.run("doctor", "--node", "worker-9")
    assert done.returncode == 1
    assert "no pod of the driver is on node 'worker-9'" in done.stderr


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"output": '{"role": "node"}'}, "lacks the field"),
        (
            {"output": "", "status": 2, "errors": "Error: No such command 'doctor'.\n"},
            "does not know this command",
        ),
        ({"output": "", "status": 137}, "ended by signal 9"),
    ],
    ids=["another form", "no doctor", "killed"],
)
def test_a_pod_whose_doctor_cannot_be_run(
    whole: Cluster, answer: dict[str, Any], text: str
) -> None:
    whole.answers("doctor", pod="node-a", **answer)
    done = whole.run("doctor", "-o", "json")
    assert amiss(done) == [("failed", "doctor", f"{HOME}/node-a")]
    assert text in done.stdout
    # The others are asked all the same.
    assert len(whole.execs) == 3


def test_commands_in_pods_are_forbidden(whole: Cluster) -> None:
    whole.refuse = {"exec": 'error: pods "x" is forbidden: User "poor" cannot create'}
    found = amiss(whole.run("doctor", "-o", "json"))
    assert [each[1] for each in found] == ["doctor"] * 3


def test_no_command_is_run_in_a_pod_of_another_namespace(whole: Cluster) -> None:
    for component in ("controller", "node", "datapath"):
        whole.driver_pod(f"posing-{component}", component, namespace="shop")
    done = whole.run("doctor", "-o", "json")
    # Whose they are is for an administrator to find out.
    assert amiss(done) == [("failed", "driver-name", DRIVER)]
    assert "release storage in namespace shop" in done.stdout
    assert len(whole.execs) == 3
    assert not [each for each in whole.calls if "exec" in each and "shop" in str(each)]


def test_a_driver_without_its_object_is_looked_at_where_the_user_says(
    whole: Cluster,
) -> None:
    whole.remove("CSIDriver")
    done = whole.run("doctor")
    assert done.returncode == 1
    assert "name the driver's own namespace with --driver-namespace" in done.stderr
    assert not whole.execs
    done = whole.run("doctor", "-o", "json", "--driver-namespace", HOME)
    assert amiss(done) == [("failed", "csi-driver", DRIVER)]


def test_no_driver_at_all(cluster: Cluster) -> None:
    cluster.objects.clear()
    done = cluster.run("doctor")
    assert done.returncode == 1
    assert "install the chart" in done.stderr
