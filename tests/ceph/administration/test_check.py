# SPDX-License-Identifier: Apache-2.0
"""Each finding of `volume check`, the damage done with python-rbd alone."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest
import rbd

from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.flattening import FlattenWork
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.records import read_record
from csi_driver.provisioning.requests import SnapshotRequest
from csi_driver.provisioning.requests import Source
from tests.ceph.administration.making import SIZE
from tests.ceph.administration.making import Maker

SECRET_FILE = "--secret-file"


def test_a_family_in_order(maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone")
    maker.snapshot(clone, "kept")
    for each in (source, clone):
        assert maker.check(each, SECRET_FILE, str(maker.secret)) == {}
    done = maker.run("check", "--all")
    assert done.returncode == 0
    lines = sorted(done.stdout.splitlines())
    assert lines == ["clone: in order", "source: in order"]


def test_several_volumes_of_which_one_is_gone(maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone")
    gone = str(maker.volume_id(clone)) + "f"
    words = (str(maker.volume_id(source)), gone)
    done = maker.run("check", *words, "--output=json")
    assert done.returncode == 1, done.stderr
    first, second = json.loads(done.stdout)
    assert (first["name"], first["ok"]) == ("source", True)
    assert (second["id"], second["ok"]) == (gone, False)
    assert [each["code"] for each in second["findings"]] == ["volume-gone"]
    done = maker.run("check", *words, SECRET_FILE, str(maker.secret))
    assert done.returncode == 1
    assert "a Secret is for one volume" in done.stderr
    # Alone, it is an error as it is for every other command.
    done = maker.run("check", gone, "--output=json")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_clone_that_was_flattened_raw(maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone")
    kept = maker.snapshot(clone, "kept")
    with maker.rbd_image(clone) as image:
        image.flatten()
    found = maker.check(clone, SECRET_FILE, str(maker.secret))
    assert found.keys() == {"raw-flattened", "load-failed"}
    remedy = found["raw-flattened"]["remedy"]
    assert "under its own key" in remedy
    assert str(maker.volume_id(source)) in remedy
    assert "intact snapshots, newest first: kept" in remedy
    assert "its head does not load" in found["load-failed"]["meaning"]
    # What the finding promises of the snapshot holds.
    assert maker.content(clone, kept.number)


def test_what_a_raw_flattened_clone_wrote_can_be_saved(maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone")
    data = b"own".ljust(4096, b"!")
    maker.write(clone, 8 * MIB, data * 1024)
    with maker.rbd_image(clone) as image:
        image.flatten()
        assert "raw-flattened" in maker.findings(clone)
        # As the remedy says.
        image.write(b"LUKS", 0)
        image.write(b"SKUL", 16384)
    assert maker.content(clone)[8 * MIB : 12 * MIB] == data * 1024


def test_a_snapshot_orphaned_by_deep_flatten(maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone", extra_features=("deep-flatten",))
    assert not maker.findings(clone)["deep-flatten"].wrong
    maker.snapshot(clone, "kept")
    assert maker.findings(clone)["deep-flatten"].wrong
    done = maker.run(
        "flatten", str(maker.volume_id(clone)), SECRET_FILE, str(maker.secret)
    )
    assert done.returncode == 1
    assert "would never load again" in done.stderr
    with maker.rbd_image(clone) as image:
        image.flatten()
    found = maker.check(clone, SECRET_FILE, str(maker.secret))
    assert {"raw-flattened", "snapshot-orphaned"} <= found.keys()
    assert "'kept'" in found["snapshot-orphaned"]["meaning"]
    assert "no snapshot of it is intact" in found["raw-flattened"]["remedy"]


@pytest.mark.parametrize("whole", [False, True])
def test_a_header_that_was_overwritten(maker: Maker, *, whole: bool) -> None:
    record = maker.volume("volume")
    maker.snapshot(record, "before")
    with maker.rbd_image(record) as image:
        image.write(bytes(64 * 1024 if whole else 4096), 0)
    found = maker.findings(record)
    assert found.keys() == {"header-missing"}
    remedy = found["header-missing"].remedy
    assert ("is not intact either" in remedy) is whole
    assert ("16384 bytes behind the start, is intact" in remedy) is not whole
    assert "newest first: before" in remedy
    maker.check(record, SECRET_FILE, str(maker.secret))


@pytest.mark.parametrize("of_clone", [False, True])
@pytest.mark.parametrize("at", [4096 + 700, 4096, 100])
def test_a_damaged_header(maker: Maker, at: int, *, of_clone: bool) -> None:
    record = maker.volume("volume")
    if of_clone:
        record = maker.clone(record, "clone")
    with maker.rbd_image(record) as image:
        image.write(b"\xff\xfe", at)
    found = maker.findings(record)
    assert found.keys() == {"header-damaged"}
    assert "is intact" in found["header-damaged"].remedy


def test_a_header_that_was_replaced(maker: Maker) -> None:
    record = maker.volume("volume")
    other = maker.volume("other")
    with maker.rbd_image(other) as image:
        header = image.read(0, 288 * 1024)
    with maker.rbd_image(record) as image:
        image.write(header, 0)
    found = maker.findings(record)
    assert found.keys() == {"header-replaced", "key-missing"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (16 * MIB, "size-shifted"),
        (-16 * MIB, "size-shifted"),
        (4096, "size-larger"),
        (-4096, "size-smaller"),
    ],
)
def test_sizes_that_do_not_fit(maker: Maker, change: int, code: str) -> None:
    record = maker.volume("volume")
    with maker.rbd_image(record) as image:
        image.resize(image.size() + change)
    found = maker.findings(record)
    assert found.keys() == {code}


def test_a_growth_that_is_pending_is_normal(maker: Maker) -> None:
    record = maker.volume("volume")
    record = maker.change(record.image_id, desired=EffectiveSize(2 * SIZE))
    found = maker.findings(record)
    assert found.keys() == {"growth-pending"}
    with maker.rbd_image(record) as image:
        image.resize(image.size() + SIZE)
    assert maker.findings(record).keys() == {"growth-unrecorded"}


def test_layers_and_keys_that_the_record_lacks(maker: Maker) -> None:
    source = maker.volume("source")
    clone = maker.clone(source, "clone")
    maker.snapshot(clone, "kept")
    assert clone.ring is not None
    ring = clone.ring.without(source.layers)
    record = maker.change(clone.image_id, ring=ring)
    found = maker.findings(record)
    assert found.keys() == {"key-missing"}
    assert source.layers[0] in found["key-missing"].meaning
    record = maker.change(clone.image_id, ring=clone.ring, layers=clone.layers[:1])
    assert maker.findings(record).keys() == {"layers-differ"}


def test_snapshots_that_only_one_side_knows(maker: Maker) -> None:
    record = maker.volume("volume")
    taken = maker.snapshot(record, "taken")
    with maker.rbd_image(record) as image:
        image.remove_snap(taken.rbd_name)
        image.create_snap("rbdcrypt-snap-nobody-knows")
        image.create_snap("of an administrator")
    found = maker.findings(record)
    assert found.keys() == {"snapshot-gone", "snapshot-unnamed"}
    assert "'taken'" in found["snapshot-gone"].meaning
    assert "rbdcrypt-snap-nobody-knows" in found["snapshot-unnamed"].meaning


def test_clients_that_are_gone(maker: Maker) -> None:
    record = maker.volume("volume")
    export = ExportEntry("node-1", "boot", "127.0.0.1:0/123", read_only=False)
    record = maker.change(
        record.image_id,
        exports=(export,),
        flatten=FlattenWork("127.0.0.1:0/124", 3, 10),
    )
    found = maker.findings(record)
    assert found.keys() == {"export-stale", "flatten-interrupted"}
    assert "'node-1'" in found["export-stale"].meaning
    record = maker.change(record.image_id, exports=(), flatten=None)
    with maker.rbd_image(record) as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        assert maker.findings(record).keys() == {"lock-unrecorded"}


def test_settings_that_a_clone_inherited(maker: Maker) -> None:
    source = maker.volume("source")
    with maker.rbd_image(source) as image:
        image.metadata_set("conf_rbd_qos_iops_limit", "100")
    clone = maker.clone(source, "clone")
    assert maker.findings(clone).keys() == {"setting-inherited"}
    # The driver's own name for it, so it is wrong on the source as well.
    assert maker.findings(source)["setting-foreign"].wrong
    limits = dataclasses.replace(source.limits, iops=100)
    assert maker.findings(maker.change(source.image_id, limits=limits)) == {}


def test_a_record_that_cannot_be_read(maker: Maker) -> None:
    record = maker.volume("volume")
    with maker.rbd_image(record) as image:
        image.metadata_set(".rbdcrypt", '{"version": 77}')
    found = maker.check(record)
    assert found.keys() == {"record-damaged"}
    assert "version 77" in found["record-damaged"]["meaning"]


def test_a_secret_of_another_volume(maker: Maker) -> None:
    record = maker.volume("volume")
    key = base64.b64encode(bytes(range(65, 97))).decode()
    wrong = json.dumps({"encryptionKey": key})
    done = maker.run(
        "check", str(maker.volume_id(record)), SECRET_FILE, "-", stdin=wrong
    )
    assert done.returncode == 1
    assert "fingerprint" in done.stderr
    assert key not in done.stdout + done.stderr


def test_a_family_that_the_driver_made_is_in_order(maker: Maker) -> None:
    world = maker.world
    source = world.volumes.create(world.request("made", SIZE))
    taken = world.volumes.create_snapshot(SnapshotRequest("taken", source.volume_id))
    wanted = world.request("clone", SIZE)
    origins: tuple[Source, ...] = (source.volume_id, taken.snapshot_id)
    clones = [
        world.volumes.create(
            dataclasses.replace(wanted, name=f"clone-{number}", source=origin)
        )
        for number, origin in enumerate(origins)
    ]
    records = [
        read_record(maker.pool, each.volume_id.image_id) for each in (source, *clones)
    ]
    for record in records:
        assert maker.check(record, SECRET_FILE, str(maker.secret)) == {}
    last = records[-1]
    done = maker.run("flatten", last.name, SECRET_FILE, str(maker.secret))
    assert done.returncode == 0, done.stderr
    assert maker.check(last, SECRET_FILE, str(maker.secret)) == {}
    found = maker.record(last)
    assert (found.ancestors, found.layers) == (0, last.layers[:1])
