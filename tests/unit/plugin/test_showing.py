# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt show`: one volume with the names that Kubernetes has for all."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from csi_driver.domain.limits import IoLimits
from csi_driver.domain.record import EncryptionMode
from tests.unit.plugin.answers import FIRST
from tests.unit.plugin.answers import FLATTENING
from tests.unit.plugin.answers import OWN
from tests.unit.plugin.answers import SECOND
from tests.unit.plugin.answers import TAKEN
from tests.unit.plugin.answers import TAKEN_ID
from tests.unit.plugin.answers import THIRD
from tests.unit.plugin.answers import shown
from tests.unit.plugin.cluster import Cluster


@pytest.fixture
def family(cluster: Cluster) -> Cluster:
    """Give a clone `clone` of `first`, with a snapshot that `third` reads."""
    cluster.claim("first", FIRST)
    volume = cluster.claim("clone", SECOND)
    cluster.claim("third", THIRD, namespace="bank")
    cluster.add(
        "VolumeSnapshotContent",
        "snapcontent-1",
        spec={"volumeSnapshotRef": {"namespace": "shop", "name": "friday"}},
        status={"snapshotHandle": TAKEN_ID},
    )
    attachment(cluster, "csi-1", volume, "worker-1", attached=True)
    attachment(cluster, "csi-2", "pvc-of-others", "worker-3", attached=True)
    pod(
        cluster, "till-0", "worker-1", {"persistentVolumeClaim": {"claimName": "clone"}}
    )
    pod(cluster, "other", "worker-4", {"persistentVolumeClaim": {"claimName": "first"}})
    cluster.answers(f"volume show {SECOND}", shown())
    return cluster


def attachment(
    cluster: Cluster, name: str, volume: str, node: str, **status: Any
) -> None:
    cluster.add(
        "VolumeAttachment",
        name,
        spec={"source": {"persistentVolumeName": volume}, "nodeName": node},
        status=status,
    )


def pod(
    cluster: Cluster,
    name: str,
    node: str,
    volume: dict[str, Any],
    phase: str = "Running",
) -> None:
    spec = {"volumes": [{"name": "data", **volume}], "nodeName": node}
    cluster.add("Pod", name, "shop", spec=spec, status={"phase": phase})


def test_a_volume_for_people(family: Cluster) -> None:
    done = family.run("show", "clone")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    facts = {line[0]: line[1:] for line in lines[: lines.index([])]}
    assert facts["claim"] == ["shop/clone"]
    assert facts["volume"] == ["pvc-shop-clone"]
    assert facts["id"] == [SECOND]
    assert facts["fingerprint"] == ["0123-4567-89ab-cdef"]
    assert facts["effective"] == ["1", "GiB", "(1073741824", "bytes)"]
    assert facts["raw"][:2] == ["1", "GiB"]
    assert facts["source"] == ["PVC", "shop/first"]
    assert facts["health"] == ["1", "thing", "is", "wrong,", "see", "below"]
    assert "promised" not in facts
    rows = {line[0]: line[1:] for line in lines if line}
    assert rows["0"] == [
        *("csi-vol-clone", "shop/clone", "clone-luks2", OWN, "1", "GiB", "1", "GiB"),
    ]
    assert rows["1"][:3] == ["csi-vol-first", "shop/first", "luks2"]
    assert rows["shop/friday"] == [
        *("ready", "2023-11-14", "22:13:20", "2", "PVC", "bank/third,"),
        *("rbd2/ns/by-hand", "(trash)"),
    ]
    assert rows["snapshot-2"][:3] == ["ready,", "not", "there"]
    assert rows["worker-1"] == ["writable", "yes", "shop/till-0", "(Running)"]
    assert "worker-3" not in done.stdout
    assert "worker-4" not in done.stdout
    assert "WRONG snapshot-gone" in done.stdout
    assert len(family.execs) == 1


def test_a_volume_for_programs(family: Cluster) -> None:
    done = family.run("show", "clone", "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["apiVersion"], found["kind"]) == ("kubectl.rbdcrypt.io/v1", "Volume")
    assert found["claim"] == "clone"
    assert found["volumeID"] == SECOND
    assert found["source"] == FIRST
    assert found["sizes"] == {
        "requested": "1Gi",
        "capacity": "1Gi",
        "promised": 1 << 30,
        "effective": 1 << 30,
        "raw": (1 << 30) + (16 << 20),
        "reserve": 16 << 20,
    }
    assert found["depth"] == 1
    assert [each["claim"] for each in found["layers"]] == [
        {"namespace": "shop", "name": "clone"},
        {"namespace": "shop", "name": "first"},
    ]
    taken, gone = found["snapshots"]
    assert taken["volumeSnapshot"] == {"namespace": "shop", "name": "friday"}
    assert taken["snapshotID"] == TAKEN_ID
    assert [each["claim"] for each in taken["clones"]] == [
        {"namespace": "bank", "name": "third"},
        None,
    ]
    assert (gone["present"], gone["volumeSnapshot"], gone["layers"]) == (
        False,
        None,
        [],
    )
    (export,) = found["exports"]
    assert (export["node"], export["alive"]) == ("worker-1", True)
    assert found["attachments"] == [
        {"node": "worker-1", "attached": True, "problem": None}
    ]
    assert found["pods"] == [
        {"namespace": "shop", "name": "till-0", "node": "worker-1", "phase": "Running"}
    ]
    assert found["healthy"] is False
    assert [each["code"] for each in found["findings"]] == ["snapshot-gone"]
    as_yaml = family.run("show", "clone", "-o", "yaml")
    assert yaml.safe_load(as_yaml.stdout) == found


def test_what_only_some_volumes_have(cluster: Cluster) -> None:
    cluster.claim("clone", SECOND)
    record = {
        "limits": IoLimits(100, 5 << 20),
        "flatten": FLATTENING,
        "recovered": False,
        "mode": EncryptionMode.PASSPHRASE,
        "ring": None,
    }
    cluster.answers(f"volume show {SECOND}", shown(**record))
    done = cluster.run("show", "clone")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert "limits 100 operations/s, 5 MiB/s" in words
    assert "flatten flattening 30 %" in words
    assert "content xfs, journal not replayed yet" in words
    assert "encryption passphrase" in words
    # Its source has no PersistentVolume any more.
    assert f"source {FIRST}" in words


def test_a_pod_that_waits_and_an_attachment_that_fails(cluster: Cluster) -> None:
    volume = cluster.claim("clone", SECOND)
    pod(
        cluster,
        "till-0",
        "",
        {"persistentVolumeClaim": {"claimName": "clone"}},
        "Pending",
    )
    attachment(
        cluster,
        "csi-1",
        volume,
        "worker-2",
        attachError={"message": "in use elsewhere"},
    )
    cluster.answers(f"volume show {SECOND}", shown(exports=()))
    done = cluster.run("show", "clone")
    words = " ".join(done.stdout.split())
    assert "pods shop/till-0: on no node yet" in words
    assert "worker-2 - no: in use elsewhere -" in words


def test_a_pod_whose_datapath_has_died(family: Cluster) -> None:
    family.answers(f"volume show {SECOND}", shown(exports=(), snapshots=(TAKEN,)))
    done = family.run("show", "clone")
    words = " ".join(done.stdout.split())
    assert "health 1 thing is wrong" in words
    assert "worker-1 NO yes shop/till-0 (Running)" in words
    assert "WRONG not-served shop/till-0 runs on node worker-1" in words
    done = family.run("show", "clone", "-o", "json")
    found = json.loads(done.stdout)
    assert found["healthy"] is False
    assert found["findings"][0]["code"] == "not-served"


def test_a_pod_that_has_ended_needs_no_volume(cluster: Cluster) -> None:
    cluster.claim("clone", SECOND)
    used = {"persistentVolumeClaim": {"claimName": "clone"}}
    pod(cluster, "job-0", "worker-1", used, "Succeeded")
    answer = shown(exports=(), snapshots=(TAKEN,))
    cluster.answers(f"volume show {SECOND}", answer)
    done = cluster.run("show", "clone", "-o", "json")
    codes = {each["code"] for each in json.loads(done.stdout)["findings"]}
    assert "not-served" not in codes


def test_an_ephemeral_volume_belongs_to_its_pod(cluster: Cluster) -> None:
    cluster.claim("till-0-data", SECOND)
    pod(cluster, "till-0", "worker-1", {"ephemeral": {"volumeClaimTemplate": {}}})
    cluster.answers(f"volume show {SECOND}", shown())
    done = cluster.run("show", "till-0-data", "-o", "json")
    assert [each["name"] for each in json.loads(done.stdout)["pods"]] == ["till-0"]


def test_what_the_user_may_not_see_is_said_to_be_unseen(family: Cluster) -> None:
    family.refuse = {
        kind: f"Error from server (Forbidden): {kind} is forbidden: User"
        for kind in ("volumeattachments", "volumesnapshotcontents")
    }
    done = family.run("show", "clone")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert "attachments not shown: no right to see them" in words
    assert "snapshot-1 ready" in words
    done = family.run("show", "clone", "-o", "json")
    found = json.loads(done.stdout)
    assert found["attachments"] is None
    assert found["pods"] is not None


def test_a_cluster_without_snapshots_shows_the_rest(cluster: Cluster) -> None:
    cluster.claim("clone", SECOND)
    cluster.absent = ["volumesnapshotcontents"]
    cluster.answers(f"volume show {SECOND}", shown())
    done = cluster.run("show", "clone")
    assert done.returncode == 0, done.stderr
    assert "snapshot-1" in done.stdout
