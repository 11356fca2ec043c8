# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt` with the driver's real commands behind it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess

import rbd

from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.record import Record
from tests.ceph.administration.flattens import LARGE
from tests.ceph.administration.flattens import at_full_speed
from tests.ceph.administration.flattens import await_progress
from tests.ceph.administration.flattens import family
from tests.ceph.administration.flattens import require_flat
from tests.ceph.administration.flattens import slow_down
from tests.ceph.administration.making import Maker
from tests.unit.plugin.cluster import Cluster
from tests.unit.provisioning.worlds import SECRET


def claim(cluster: Cluster, maker: Maker, name: str, record: Record) -> None:
    """Make a claim for a volume, under the Secret that all of them have."""
    cluster.claim(name, str(maker.volume_id(record)), secret="key")


def fingerprint(record: Record) -> str:
    assert record.ring is not None
    return record.ring.fingerprint


def test_claims_are_listed_with_what_ceph_has(cluster: Cluster, maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone")
    plain = maker.volume("plain", encrypted=False)
    for name, record in (("first", source), ("second", clone), ("third", plain)):
        claim(cluster, maker, name, record)
    maker.volume("forgotten")
    done = cluster.run("list", "-A", "-o", "json")
    assert done.returncode == 0, done.stderr
    found = {each["claim"]: each for each in json.loads(done.stdout)["items"]}
    assert found["first"]["fingerprint"] == fingerprint(source)
    assert [found[name]["depth"] for name in ("first", "second")] == [0, 1]
    assert (found["third"]["mode"], found["third"]["encrypted"]) == ("none", False)
    assert found["second"]["bytes"] == clone.desired.count
    assert found[None]["image"].startswith("rbd/test-")
    done = cluster.run("list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        *("PVC", "first", "second", "third"),
    ]


def test_a_family_is_shown_by_its_claims(cluster: Cluster, maker: Maker) -> None:
    source = maker.volume("source")
    middle = maker.clone(source, "middle")
    clone = maker.clone(middle, "clone")
    for name, record in (("old", source), ("mid", middle), ("new", clone)):
        claim(cluster, maker, name, record)
    done = cluster.run("show", "mid", "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each["claim"]["name"] for each in found["layers"]] == ["mid", "old"]
    assert [each["headerUUID"] for each in found["layers"]] == list(middle.layers)
    (snapshot,) = found["snapshots"]
    assert [each["claim"]["name"] for each in snapshot["clones"]] == ["new"]
    assert (found["healthy"], found["findings"]) == (True, [])
    done = cluster.run("show", "mid")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert f"fingerprint {fingerprint(middle)}" in words
    assert "source PVC shop/old" in words
    assert "health in order" in words


def test_damage_is_found(cluster: Cluster, maker: Maker) -> None:
    whole, broken = maker.volume("whole"), maker.volume("broken")
    claim(cluster, maker, "whole", whole)
    claim(cluster, maker, "broken", broken)
    with maker.rbd_image(broken) as image:
        image.write(bytes(4096), 0)
    assert cluster.run("check", "whole").returncode == 0
    done = cluster.run("check", "--all", "-o", "json")
    assert done.returncode == 1, done.stderr
    found = {each["claim"]: each for each in json.loads(done.stdout)["items"]}
    assert found["whole"]["ok"]
    codes = [each["code"] for each in found["broken"]["findings"]]
    assert codes == ["header-missing"]
    done = cluster.run("check", "broken")
    assert done.returncode == 1
    assert "WRONG header-missing" in done.stdout
    done = cluster.run("show", "broken")
    assert done.returncode == 0, done.stderr
    assert "WRONG header-missing" in done.stdout


def test_a_volume_that_is_gone(cluster: Cluster, maker: Maker) -> None:
    record = maker.volume("volume")
    claim(cluster, maker, "data", record)
    cluster.claim("other", str(maker.volume_id(record)) + "f")
    done = cluster.run("show", "other")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    done = cluster.run("check", "--all", "-o", "json")
    assert done.returncode == 1
    found = {each["claim"]: each for each in json.loads(done.stdout)["items"]}
    assert found["data"]["ok"]
    assert [e["code"] for e in found["other"]["findings"]] == ["volume-gone"]


def test_a_clone_is_flattened_with_its_secret(cluster: Cluster, maker: Maker) -> None:
    clone, content = family(maker)
    claim(cluster, maker, "clone", clone)
    cluster.secret("key", SECRET)
    done = cluster.run("flatten", "clone", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["depth"] == 0
    require_flat(maker, clone, content)
    done = cluster.run("flatten", "clone")
    assert done.returncode == 1
    assert "nothing to flatten" in done.stderr


def test_the_wrong_secret_is_named_by_fingerprints(
    cluster: Cluster, maker: Maker
) -> None:
    clone, _ = family(maker)
    claim(cluster, maker, "clone", clone)
    wrong = base64.b64encode(bytes(range(65, 97))).decode()
    cluster.secret("key", {"encryptionKey": wrong})
    done = cluster.run("flatten", "clone")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"the volume expects {fingerprint(clone)}" in line
    assert wrong not in json.dumps(cluster.calls) + done.stderr


def test_a_volume_in_use_is_left_alone(cluster: Cluster, maker: Maker) -> None:
    clone, _ = family(maker)
    claim(cluster, maker, "clone", clone)
    cluster.secret("key", SECRET)
    with maker.rbd_image(clone) as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        (owner,) = image.lock_get_owners()
        export = ExportEntry("worker-1", "boot", owner["owner"], read_only=False)
        maker.change(clone.image_id, exports=(export,))
        done = cluster.run("flatten", "clone")
        shown = cluster.run("show", "clone")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "is staged on node worker-1" in line
    assert "unstage it first" in line
    (row,) = [e.split() for e in shown.stdout.splitlines() if e.startswith("worker-1")]
    assert row[:2] == ["worker-1", "writable"]


def test_ctrl_c_in_the_middle_and_once_more_to_the_end(
    cluster: Cluster, maker: Maker
) -> None:
    clone, content = family(maker, LARGE, object_size=65536)
    slow_down(maker, clone)
    claim(cluster, maker, "clone", clone)
    cluster.secret("key", SECRET)
    with subprocess.Popen(
        cluster.command("flatten", "clone"),
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        await_progress(maker, clone, process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on with what is left" in errors
    assert maker.record(clone).flatten is None
    assert maker.content(clone) == content
    at_full_speed(maker, clone)
    assert cluster.run("flatten", "clone").returncode == 0
    require_flat(maker, clone, content)


def test_the_doctor_is_run_in_every_pod(cluster: Cluster, maker: Maker) -> None:
    cluster.driver_pod("node-a", "node", nodeName="worker-1")
    cluster.driver_pod("datapath-a", "datapath", nodeName="worker-1")
    done = cluster.run("doctor", "-o", "json")
    # The lab has no kubelet, and none of the driver's processes runs.
    assert done.returncode == 1, done.stderr
    places = {each["component"]: each for each in json.loads(done.stdout)["places"]}
    assert places.keys() == {None, "controller", "node", "datapath"}
    where = f"lab:rbd/{maker.world.namespace}"
    for component in ("controller", "node", "datapath"):
        checks = {e["check"]: e for e in places[component]["checks"]}
        assert (checks["ceph-pool"]["subject"], checks["ceph-pool"]["status"]) == (
            *(where, "ok"),
        )
    checks = {e["check"]: e for e in places["node"]["checks"]}
    assert checks["tools"]["status"] == "ok"
    assert checks["datapath"]["status"] == "failed"
    outside = {e["check"]: e["status"] for e in places[None]["checks"]}
    assert (outside["csi-driver"], outside["csi-node"]) == ("ok", "failed")
