# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in the way is one sentence with what to do, and exit status 1.

kubectl's words are those of kubectl 1.36 against a real API server.
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.unit.plugin.answers import FIRST
from tests.unit.plugin.answers import listed
from tests.unit.plugin.cluster import CONTROLLER
from tests.unit.plugin.cluster import Cluster

_LOG = (
    'E1126 01:08:21.154481   14724 memcache.go:265] "Unhandled Error"'
    ' err="couldn\'t get current server API group list"\n'
)
FORBIDDEN = (
    'Error from server (Forbidden): {0} is forbidden: User "poor" cannot list resource'
    ' "{0}" in API group "" at the cluster scope'
)


def sentence(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """Return the one line of a failure."""
    assert done.returncode == status, done.stdout + done.stderr
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


_REFUSED = (
    "The connection to the server 10.123.0.1:1 was refused - did you specify the right"
    " host or port?"
)
_TLS = (
    "Unable to connect to the server: tls: failed to verify certificate: x509:"
    " certificate signed by unknown authority"
)
_CONTEXT = "Error in configuration: context was not found for specified context: nope"
_LOGIN = (
    "the API server does not accept your credentials: log in anew, or choose others"
    " with --context or --kubeconfig"
)
_RIGHT = "ask an administrator of the cluster for that right"
_REACH = "is the cluster of this context up and in reach?"
_CONFIG = "look at `kubectl config get-contexts`, --context and --kubeconfig"


@pytest.mark.parametrize(
    ("text", "shown", "advice"),
    [
        (FORBIDDEN.format("pods"), FORBIDDEN.format("pods"), _RIGHT),
        ("error: You must be logged in to the server (Unauthorized)", "", _LOGIN),
        (_LOG + _REFUSED, _REFUSED, _REACH),
        (_LOG + _TLS, _TLS, _REACH),
        (_CONTEXT, _CONTEXT, _CONFIG),
        ("error: stat /nope: no such file or directory", "", _CONFIG),
        ("error: EOF", "", ""),
    ],
    ids=["rights", "login", "refused", "tls", "context", "kubeconfig", "unknown"],
)
def test_kubectl_itself_fails(
    cluster: Cluster, text: str, shown: str, advice: str
) -> None:
    cluster.refuse = {"*": text}
    words = (shown or text).removeprefix("Error from server (Forbidden): ")
    expected = f"reading csidrivers: {words.removeprefix('error: ')}"
    found = sentence(cluster.run("list", "--kubeconfig", "mine"))
    assert found.startswith("; ".join(filter(None, (expected, advice))))
    # What lacks a right is asked for less; nothing else is mended by that.
    assert ("--driver-namespace" in found) is ("is forbidden" in text)


def test_there_is_no_kubectl(cluster: Cluster) -> None:
    done = cluster.run("list", PATH="/nonexistent")
    assert "kubectl is not on PATH" in sentence(done)


@pytest.mark.parametrize("words", [["list"], ["show", "data"]])
def test_persistent_volumes_are_forbidden(cluster: Cluster, words: list[str]) -> None:
    cluster.claim("data", FIRST)
    cluster.answers("volume list", [listed(FIRST, "pvc-1")])
    cluster.refuse = {"persistentvolumes": FORBIDDEN.format("persistentvolumes")}
    found = sentence(cluster.run(*words))
    assert "persistentvolumes is forbidden" in found
    assert found.endswith("ask an administrator of the cluster for that right")


def test_commands_in_pods_are_forbidden(cluster: Cluster) -> None:
    cluster.refuse = {
        "exec": "error: unable to upgrade connection: pods"
        f' "{CONTROLLER}" is forbidden: User "poor" cannot create resource'
        ' "pods/exec" in API group "" in the namespace "rbdcrypt"'
    }
    found = sentence(cluster.run("list"))
    assert 'cannot create resource "pods/exec"' in found
    assert f"running a command in pod rbdcrypt/{CONTROLLER}" in found


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--driver-namespace", "there"], "in namespace there"),
        (["--release", "fast"], "as release fast"),
        (
            ["--driver-namespace", "rbdcrypt", "--release", "fast"],
            "in namespace rbdcrypt as release fast",
        ),
    ],
)
def test_no_driver_is_found_where_the_user_says(
    cluster: Cluster, words: list[str], where: str
) -> None:
    cluster.driver_pod("posing", namespace="there", release="fast")
    assert sentence(cluster.run("list", *words)) == (
        f"no rbdcrypt-csi is installed {where}: its CSIDriver objects belong to storage"
        " in rbdcrypt; choose one with --driver-namespace or --release"
    )


def test_the_cluster_has_no_driver(cluster: Cluster) -> None:
    cluster.objects.clear()
    found = sentence(cluster.run("list"))
    assert found.startswith(
        "no rbdcrypt-csi is installed in this cluster: no CSIDriver"
    )
    assert "install the chart" in found


def test_the_driver_has_no_controller(cluster: Cluster) -> None:
    cluster.remove("Pod")
    assert sentence(cluster.run("list")).startswith(
        "no controller of rbdcrypt-csi was found in namespace rbdcrypt as release"
        " storage: no pod has the labels"
    )


def test_several_drivers_are_found(cluster: Cluster) -> None:
    cluster.driver_pod("fast-controller", namespace="fast", release="fast")
    cluster.csi_driver("fast.example.com", namespace="fast", release="fast")
    cluster.answers("volume list", [])
    assert sentence(cluster.run("list")) == (
        "2 installations of rbdcrypt-csi were found: fast in fast, storage in"
        " rbdcrypt; choose one with --driver-namespace or --release"
    )
    for words in (["--driver-namespace", "fast"], ["--release", "fast"]):
        before = len(cluster.calls)
        assert cluster.run("list", *words).returncode == 0
        (call,) = [each for each in cluster.calls[before:] if "exec" in each]
        assert "fast-controller" in call


def test_a_controller_that_is_ready_is_preferred(cluster: Cluster) -> None:
    cluster.remove("Pod")
    cluster.driver_pod("a", ready=False, state={"waiting": {"reason": "CrashLoop"}})
    cluster.driver_pod("b", ready=False)
    cluster.driver_pod("c")
    cluster.answers("volume list", [])
    assert cluster.run("list").returncode == 0
    assert [e for e in cluster.calls if "exec" in e and "c" in e]


def test_no_controller_runs(cluster: Cluster) -> None:
    cluster.remove("Pod")
    cluster.driver_pod(ready=False, state={"waiting": {"reason": "CrashLoopBackOff"}})
    assert sentence(cluster.run("list")) == (
        f"no controller pod of rbdcrypt-csi runs: rbdcrypt/{CONTROLLER} is"
        " CrashLoopBackOff; look at `kubectl describe pod --namespace rbdcrypt"
        f" {CONTROLLER}`"
    )


@pytest.mark.parametrize("command", ["show", "check", "flatten"])
@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("nowhere", "there is no PersistentVolumeClaim nowhere in namespace shop:"),
        ("waiting", "claim shop/waiting is not bound (Pending)"),
        ("lost", "PersistentVolume pvc-gone of claim shop/lost does not exist:"),
        (
            "others",
            "claim shop/others has a volume that is of driver rbd.csi.ceph.com;",
        ),
        ("nfs", "claim shop/nfs has a volume that is no CSI volume;"),
        ("odd", "PersistentVolume pvc-shop-odd: no volume has the id '--all'"),
    ],
)
def test_a_claim_that_leads_nowhere(
    cluster: Cluster, command: str, claim: str, expected: str
) -> None:
    cluster.pending("waiting")
    cluster.pending("lost", volume="pvc-gone", phase="Lost")
    cluster.claim("others", "0001-x", driver="rbd.csi.ceph.com")
    cluster.pending("nfs", volume="nfs-1", phase="Bound")
    cluster.add("PersistentVolume", "nfs-1", spec={"nfs": {"server": "x"}})
    cluster.claim("odd", "--all")
    found = sentence(cluster.run(command, claim, "--namespace", "shop"))
    assert found.startswith(expected)
    assert not cluster.execs


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {
                "status": 1,
                "errors": "a warning\nrbdcrypt-csi: cluster 'lab' did not answer\n",
            },
            "cluster 'lab' did not answer",
        ),
        (
            {"status": 127, "errors": 'exec: "rbdcrypt-csi": not found\n'},
            f"pod rbdcrypt/{CONTROLLER} has no command rbdcrypt-csi in its container",
        ),
        (
            {"status": 137},
            f"the command in pod rbdcrypt/{CONTROLLER} was ended by signal 9:",
        ),
        ({"status": 3}, f"the command in pod rbdcrypt/{CONTROLLER} failed with exit"),
        (
            {"broken": True, "errors": "error: unexpected EOF\n"},
            f"running a command in pod rbdcrypt/{CONTROLLER}: unexpected EOF",
        ),
    ],
    ids=["its own words", "no such command", "killed", "silent", "cut off"],
)
def test_the_command_in_the_pod_fails(
    cluster: Cluster, answer: dict[str, Any], expected: str
) -> None:
    cluster.answers("volume list", "", **answer)
    done = cluster.run("list")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {expected}")
    assert "terminated" not in done.stderr


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"output": "[{}]"}, "its answer lacks the field 'id'"),
        ({"output": '{"items": []}'}, "its answer is not what this plugin reads"),
        ({"output": "hello"}, "its answer is not what this plugin reads"),
        (
            {"status": 2, "errors": "Usage: …\nError: No such option: --output\n"},
            "it does not know this command or a flag of it",
        ),
    ],
)
def test_a_driver_of_another_version(
    cluster: Cluster, answer: dict[str, Any], expected: str
) -> None:
    cluster.answers("volume list", **answer)
    done = cluster.run("list")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert expected in last
    assert "is older or newer than this plugin (" in last
    assert "rbdcrypt-csi:0.1.0" in last


def test_each_field_of_the_list_is_needed(cluster: Cluster) -> None:
    whole = listed(FIRST, "pvc-1")
    unread = {"deleted", "actual", "block", "filesystem", "source", "context"}
    for name in whole.keys() - unread:
        answer = {key: value for key, value in whole.items() if key != name}
        cluster.answers("volume list", [answer])
        assert f"lacks the field {name!r}" in sentence(cluster.run("list"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "Usage: "),
        (["nonsense"], "No such command"),
        (["list", "--nonsense"], "No such option"),
        (["list", "-o", "xml"], "'xml'"),
        (["list", "-n", "shop", "-A"], "not both"),
        (["list", "-n", "Shop"], "is not a Kubernetes namespace"),
        (["list", "--driver-namespace", "../x"], "is not a Kubernetes namespace"),
        (["show"], "PVC"),
        (["show", "--", "-o"], "is not a name of a Kubernetes object"),
        (["show", "Data"], "is not a name of a Kubernetes object"),
        (["check"], "or --all"),
        (["check", "data", "--all"], "or --all"),
        (["check", "data", "-A"], "a claim has one namespace"),
        (["check", "Data"], "is not a name of a Kubernetes object"),
        (["flatten"], "PVC"),
    ],
)
def test_wrong_usage_is_status_2(cluster: Cluster, words: list[str], text: str) -> None:
    done = cluster.run(*words)
    assert done.returncode == 2
    assert text in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr
