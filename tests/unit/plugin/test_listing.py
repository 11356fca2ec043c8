# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt list`: claims meet the driver's volumes in the volume id."""

from __future__ import annotations

import json

import yaml

from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.provisioning.collection_preview import BEGUN
from tests.unit.plugin.answers import FIRST
from tests.unit.plugin.answers import FLATTENING
from tests.unit.plugin.answers import SECOND
from tests.unit.plugin.answers import THIRD
from tests.unit.plugin.answers import damaged
from tests.unit.plugin.answers import export
from tests.unit.plugin.answers import half_made
from tests.unit.plugin.answers import listed
from tests.unit.plugin.cluster import Cluster

PLAIN = {
    "desired": EffectiveSize(3 << 30),
    "mode": EncryptionMode.NONE,
    "ring": None,
    "ancestors": 0,
    "exports": (),
    "flatten": None,
}
CLONE = {"exports": (export("worker-2"), export("worker-1")), "flatten": FLATTENING}


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of the first table by their first cell."""
    _, *lines = text.partition("\n\n")[0].splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines}


def test_claims_are_listed_with_what_the_driver_says(cluster: Cluster) -> None:
    cluster.claim("plain", FIRST)
    cluster.claim("clone", SECOND)
    cluster.claim("elsewhere", THIRD, namespace="bank")
    cluster.claim("others", "whatever", driver="rbd.csi.ceph.com")
    cluster.answers(
        "volume list",
        [
            listed(FIRST, "pvc-1", **PLAIN),
            listed(SECOND, "pvc-2", **CLONE),
            listed(THIRD, "pvc-3"),
        ],
    )
    done = cluster.run("list")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == (
        ["PVC", "SIZE", "CLASS", "ENCRYPTION", "DEPTH", "FINGERPRINT", "NODE", "STATE"]
    )
    found = rows(done.stdout)
    assert found.keys() == {"plain", "clone"}
    assert found["plain"] == ["3", "GiB", "rbdcrypt", "none", "0", "-", "-", "ready"]
    assert found["clone"] == [
        *("2", "GiB", "rbdcrypt", "keyring", "2", "0123-4567-89ab-cdef"),
        *("worker-1,worker-2", "ready,", "flattening", "30", "%"),
    ]
    assert not done.stderr


def test_one_pod_is_asked_once_and_claims_by_namespace(cluster: Cluster) -> None:
    cluster.claim("data", FIRST)
    cluster.answers("volume list", [listed(FIRST, "pvc-1")])
    assert cluster.run("list", "-n", "shop").returncode == 0
    assert cluster.execs == [
        [
            *("rbdcrypt-csi", "volume", "list", "--output=json"),
            *("--log-level=error", "--log-format=console"),
        ]
    ]
    (claims,) = [e for e in cluster.calls if "persistentvolumeclaims" in e]
    assert "--namespace=shop" in claims


def test_everywhere_there_are_namespaces_and_volumes_without_claims(
    cluster: Cluster,
) -> None:
    cluster.claim("data", FIRST)
    cluster.claim("data", SECOND, namespace="bank")
    cluster.answers(
        "volume list",
        [
            listed(FIRST, "pvc-1", **PLAIN),
            listed(SECOND, "pvc-2", **PLAIN),
            listed(THIRD, "pvc-3", **PLAIN),
        ],
    )
    done = cluster.run("list", "-A")
    assert done.returncode == 0, done.stderr
    head, first, second, _, title, _, other = done.stdout.splitlines()
    assert head.split()[:2] == ["NAMESPACE", "PVC"]
    assert first.split()[:2] == ["bank", "data"]
    assert second.split()[:2] == ["shop", "data"]
    assert title == "volumes without a claim:"
    assert other.split() == ["pvc-3", "-", THIRD, "3", "GiB", "ready"]


def test_what_is_amiss_is_said_in_a_sentence(cluster: Cluster) -> None:
    cluster.pending("waiting")
    cluster.pending("lost", volume="pvc-gone", phase="Lost")
    cluster.claim("missing", FIRST)
    cluster.claim("damaged", SECOND)
    cluster.answers("volume list", [damaged(SECOND, "pvc-2", "its record is gone")])
    done = cluster.run("list")
    assert done.returncode == 0, done.stderr
    states = {name: cells[-1] for name, cells in rows(done.stdout).items()}
    assert states["waiting"] == "pending"
    assert states["lost"] == "lost"
    assert states["missing"] == "missing"
    assert states["damaged"] == "damaged"
    assert done.stdout.partition("\n\n")[2].splitlines() == [
        "shop/damaged: its record is gone",
        "shop/lost: its PersistentVolume pvc-gone does not exist",
        (
            f"shop/missing: the driver has no volume {FIRST}, which PersistentVolume"
            " pvc-shop-missing names"
        ),
    ]


def test_a_volume_that_is_being_made_is_not_damaged(cluster: Cluster) -> None:
    cluster.claim("data", FIRST)
    cluster.answers("volume list", [listed(FIRST, "pvc-1"), half_made("pvc-2")])
    done = cluster.run("list", "-A")
    assert done.returncode == 0, done.stderr
    *_, other, _, sentence = done.stdout.splitlines()
    assert other.split() == ["pvc-2", "-", "-", "-", "creating"]
    assert sentence == f"pvc-2: its image is being made; {BEGUN}"
    cluster.answers("volume list", [listed(FIRST, "pvc-1", state=VolumeState.CREATING)])
    done = cluster.run("list")
    assert done.stdout.splitlines()[-1] == f"shop/data: {BEGUN}"


def test_nothing_at_all(cluster: Cluster) -> None:
    cluster.answers("volume list", [])
    done = cluster.run("list")
    assert (done.returncode, done.stdout) == (
        0,
        "no claim of this driver is here; try -A\n",
    )
    done = cluster.run("list", "-A", "-o", "json")
    assert json.loads(done.stdout)["items"] == []


def test_the_list_for_programs(cluster: Cluster) -> None:
    cluster.claim("clone", SECOND)
    cluster.pending("waiting")
    cluster.answers(
        "volume list", [listed(SECOND, "pvc-2", **CLONE), listed(THIRD, "pvc-3")]
    )
    done = cluster.run("list", "-A", "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["apiVersion"], found["kind"]) == (
        "kubectl.rbdcrypt.io/v1",
        "VolumeList",
    )
    clone, waiting, other = found["items"]
    assert clone == {
        "namespace": "shop",
        "claim": "clone",
        "bound": True,
        "storageClass": "rbdcrypt",
        "requested": "1Gi",
        "persistentVolume": "pvc-shop-clone",
        "capacity": "1Gi",
        "volumeID": SECOND,
        "image": "rbd/csi-vol-pvc-2",
        "bytes": 2 << 30,
        "encrypted": True,
        "mode": "keyring",
        "fingerprint": "0123-4567-89ab-cdef",
        "depth": 2,
        "nodes": ["worker-1", "worker-2"],
        "flatten": {"done": 3, "total": 10},
        "state": "ready",
        "problem": None,
        "outlook": None,
    }
    assert (waiting["claim"], waiting["state"], waiting["volumeID"]) == (
        "waiting",
        "pending",
        None,
    )
    assert (other["claim"], other["volumeID"]) == (None, THIRD)
    assert clone.keys() == waiting.keys() == other.keys()
    as_yaml = cluster.run("list", "-A", "-o", "yaml")
    assert yaml.safe_load(as_yaml.stdout) == found


def test_a_volume_in_the_making_is_in_its_state(cluster: Cluster) -> None:
    cluster.claim("data", FIRST)
    answer = listed(FIRST, "pvc-1", **PLAIN, state=VolumeState.CREATING)
    cluster.answers("volume list", [answer])
    assert rows(cluster.run("list").stdout)["data"][-1] == "creating"


def test_a_driver_of_another_name_has_other_claims(cluster: Cluster) -> None:
    cluster.objects.clear()
    cluster.csi_driver("fast.example.com")
    name = {"name": "RBDCRYPT_DRIVER_NAME", "value": "fast.example.com"}
    cluster.driver_pod(env=[name])
    cluster.claim("ours", FIRST, driver="fast.example.com")
    cluster.claim("not-ours", SECOND)
    cluster.answers("volume list", [listed(FIRST, "pvc-1")])
    assert rows(cluster.run("list").stdout).keys() == {"ours"}


def test_names_cannot_steer_the_terminal(cluster: Cluster) -> None:
    cluster.claim("data", FIRST)
    cluster.answers("volume list", [damaged(FIRST, "pvc-1", "\x1b[2Jgone")])
    done = cluster.run("list")
    assert "\x1b" not in done.stdout
    assert "gone" in done.stdout
