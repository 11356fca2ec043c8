# SPDX-License-Identifier: Apache-2.0
"""`volume list`, `show` and `collect`: for people and for programs."""

from __future__ import annotations

import json

import rbd

from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.flattening import FlattenWork
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.limits import IoLimits
from csi_driver.domain.lineage import ChildIntent
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import MIB
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.provisioning.collection_preview import BEGUN
from tests.ceph.administration.making import SIZE
from tests.ceph.administration.making import Maker
from tests.unit.provisioning.worlds import SECRET


def test_the_list_shows_volumes_tombstones_and_what_is_amiss(maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone")
    plain = maker.volume("plain", encrypted=False)
    export = ExportEntry("node-1", "boot", "127.0.0.1:0/1", read_only=False)
    maker.change(clone.image_id, exports=(export,))
    with maker.rbd_image(plain) as image:
        image.metadata_set(".rbdcrypt", "nonsense")
    maker.world.volumes.delete(maker.volume_id(source))
    done = maker.run("list")
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split() == (
        ["NAME", "ID", "SIZE", "STATE", "MODE", "FILESYSTEM", "ANCESTORS", "NODES"]
    )
    rows = {line.split()[0]: line for line in lines}
    assert rows.keys() == {"clone", "plain"}
    for word in (str(maker.volume_id(clone)), "24 MiB", "ready", "keyring", "node-1"):
        assert word in rows["clone"]
    assert "is not JSON" in rows["plain"]
    done = maker.run("list", "--deleted", "--output=json")
    (found,) = json.loads(done.stdout)
    assert (found["name"], found["state"], found["deleted"]) == (
        "source",
        "deleted",
        True,
    )
    assert found["bytes"] == SIZE
    done = maker.run("list", "--output=json")
    listed = {each["name"]: each for each in json.loads(done.stdout)}
    assert clone.ring is not None
    assert listed["clone"]["fingerprint"] == clone.ring.fingerprint
    assert listed["clone"]["source"] == str(maker.volume_id(source))
    assert listed["clone"]["flatten"] is None
    assert listed["clone"]["ancestors"] == 1


def test_a_volume_is_shown_with_all_that_belongs_to_it(maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone")
    maker.snapshot(clone, "kept")
    grandchild = maker.clone(clone, "grandchild")
    with maker.rbd_image(clone) as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        (owner,) = image.lock_get_owners()
        address = owner["owner"]
        clone = maker.change(
            clone.image_id,
            exports=(ExportEntry("node-1", "boot", address, read_only=False),),
            flatten=FlattenWork(address, 3, 10),
            limits=IoLimits(100, 5 * MIB),
            children=(ChildIntent("csi-vol-x", "csi-snap-x", "making", 1, ""),),
        )
        volume_id = str(maker.volume_id(clone))
        done = maker.run("show", volume_id)
        by_name = maker.run(
            *("show", "clone", "--cluster", maker.world.cluster),
            *("--pool", maker.world.pool_name),
            *("--namespace", maker.world.namespace, "--output=json"),
        )
    assert done.returncode == 0, done.stderr
    assert clone.ring is not None
    shown = (
        f"fingerprint {clone.ring.fingerprint}",
        "clone-luks2",
        "effective 24 MiB",
        "raw 40 MiB",
        f"header {clone.layers[0]}",
        f"header {clone.layers[1]}",
        "kept",
        "for grandchild",
        maker.image_name(grandchild),
        "making",
        "node-1",
        f"3 of 10 objects by {address}",
        "100 operations/s, 5 MiB/s",
        str(maker.volume_id(source)),
    )
    for words in shown:
        assert words in done.stdout
    assert "\x1b" not in done.stdout
    found = json.loads(by_name.stdout)
    assert found["id"] == volume_id
    assert found["lockOwner"] == address
    assert [each["headerUUID"] for each in found["chain"]["layers"]] == list(
        clone.layers
    )
    assert [each["name"] for each in found["snapshots"]] == ["kept", "for grandchild"]
    (child,) = found["snapshots"][1]["clones"]
    assert child["imageID"] == grandchild.image_id
    assert found["exports"][0]["alive"] is True
    number = found["snapshots"][0]["number"]
    assert found["snapshots"][0]["id"] == str(
        SnapshotId(maker.volume_id(clone), number)
    )
    # The test's limits stand in the record alone.
    assert found["ok"] is False
    assert {each["code"] for each in found["findings"]} == {"limits-differ"}
    assert "limits-differ: see `volume check`" in done.stdout
    # Neither the Secret nor a wrapped key is in there.
    for text in (done.stdout, by_name.stdout):
        assert SECRET["encryptionKey"] not in text
        assert "ciphertext" not in text


def test_a_snapshot_with_a_hostile_name_cannot_steer_the_terminal(
    maker: Maker,
) -> None:
    record = maker.volume("volume")
    with maker.rbd_image(record) as image:
        image.create_snap("\x1b[2Jgone")
    done = maker.run("show", "volume")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "gone" in done.stdout
    maker.run("check", "volume")


def test_a_name_that_is_ambiguous_or_unknown(maker: Maker) -> None:
    done = maker.run("show", "nobody")
    assert done.returncode == 1
    assert "no volume is called 'nobody'" in done.stderr
    done = maker.run("show", "nobody", "--pool", "none-such")
    assert done.returncode == 1
    assert "fits" in done.stderr
    done = maker.run("show", "v1:nonsense")
    assert done.returncode == 1


def test_tombstones_are_collected_with_the_reason_why_not(maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone")
    gone = maker.volume("gone", encrypted=False)
    for each in (source, gone):
        maker.world.volumes.delete(maker.volume_id(each))
    Directory(maker.pool).claim(Entry("half", "csi-vol-half"))
    Directory(maker.pool).bury(Entry("half", "csi-vol-half"))
    before = maker.world.content()
    done = maker.run("collect", "--dry-run", "--output=json")
    assert done.returncode == 0, done.stderr
    outcomes = {each["name"]: each["outcome"] for each in json.loads(done.stdout)}
    assert outcomes["gone"] == "would be removed"
    assert outcomes["half"].startswith("would be removed")
    assert "for clone" in outcomes["source"]
    assert maker.image_name(clone) in outcomes["source"]
    assert maker.world.content() == before
    done = maker.run("collect")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert "removed" in rows["gone"]
    assert "kept" in rows["source"]
    assert maker.pool.find_image(maker.image_name(clone)) == clone.image_id


def test_what_was_begun_is_told_with_what_becomes_of_it(maker: Maker) -> None:
    made = maker.volume("made", encrypted=False)
    Directory(maker.pool).claim(Entry("half", "csi-vol-half"))
    maker.change(made.image_id, state=VolumeState.CREATING)
    before = maker.world.content()
    done = maker.run("list")
    assert "creating" in done.stdout
    assert "its image is being made" in done.stdout
    assert f"half, made: {BEGUN}" in done.stderr
    done = maker.run("list", "--output=json")
    assert {each["outlook"] for each in json.loads(done.stdout)} == {BEGUN}
    for words in (("--dry-run",), ()):
        done = maker.run("collect", *words, "--output=json")
        assert done.returncode == 0, done.stderr
        outcomes = {each["name"]: each["outcome"] for each in json.loads(done.stdout)}
        assert outcomes == {"half": BEGUN, "made": BEGUN}
    with maker.rbd_image(made):
        done = maker.run("collect", "--dry-run", "--output=json")
    outcomes = {each["name"]: each["outcome"] for each in json.loads(done.stdout)}
    assert "open by 127.0.0.1" in outcomes["made"]
    assert maker.world.content() == before
    maker.change(made.image_id, state=VolumeState.READY)
    done = maker.run("list", "--output=json")
    outlooks = {each["name"]: each["outlook"] for each in json.loads(done.stdout)}
    assert outlooks == {"half": BEGUN, "made": None}
