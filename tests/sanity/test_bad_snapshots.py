# SPDX-License-Identifier: Apache-2.0
"""Bad input at the real sockets for snapshots, clones and limits."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from csi_driver.rpc.stubs import csi_pb2
from tests.sanity.client import PASSPHRASE
from tests.sanity.client import SIZE
from tests.sanity.client import Driver
from tests.sanity.client import capability
from tests.sanity.client import refused


@pytest.fixture(scope="module")
def snapshot(driver: Driver, volume: csi_pb2.Volume) -> csi_pb2.Snapshot:
    return driver.take(volume.volume_id, f"bad-input-{uuid.uuid4()}")


NO_VOLUME = (
    "made up",
    "v1:lab:1::0123456789ab",
    "v1:lab:999999::0123456789ab",
)
NO_SNAPSHOT = (
    "made up",
    "s1:lab:1::0123456789ab:0",
    "s1:lab:1::0123456789ab:1",
    "s1:lab:999999::0123456789ab:1",
)
"""Ids of what does not exist here."""

ELSEWHERE = "v1:other:1::0123456789ab"
SNAPSHOT_ELSEWHERE = "s1:other:1::0123456789ab:1"
"""A cluster that the config does not name may come back into it, so what lies
there is not said to be gone."""


def of_volume(volume_id: str) -> dict[str, Any]:
    return {"volume_content_source": {"volume": {"volume_id": volume_id}}}


def of_snapshot(snapshot_id: str) -> dict[str, Any]:
    return {"volume_content_source": {"snapshot": {"snapshot_id": snapshot_id}}}


@pytest.mark.parametrize(
    ("source", "code"),
    [
        *((of_volume(each), "NOT_FOUND") for each in NO_VOLUME),
        *((of_snapshot(each), "NOT_FOUND") for each in NO_SNAPSHOT),
        (of_volume(""), "INVALID_ARGUMENT"),
        (of_snapshot(""), "INVALID_ARGUMENT"),
    ],
    ids=json.dumps,
)
def test_a_clone_needs_a_source_that_exists(
    driver: Driver, source: dict[str, Any], code: str
) -> None:
    before = driver.ids()
    found, message = refused(driver.controller.CreateVolume, driver.request(**source))
    assert found == code, message
    assert driver.ids() == before


@pytest.mark.parametrize(
    "source",
    [of_volume(ELSEWHERE), of_snapshot(SNAPSHOT_ELSEWHERE)],
    ids=["volume", "snapshot"],
)
def test_a_clone_stays_on_its_cluster(driver: Driver, source: dict[str, Any]) -> None:
    code, message = refused(driver.controller.CreateVolume, driver.request(**source))
    assert code == "INVALID_ARGUMENT"
    assert "'other'" in message
    assert "'lab'" in message


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"required_bytes": SIZE // 2}, "OUT_OF_RANGE", ""),
        ({"required_bytes": 1, "limit_bytes": SIZE - 4096}, "OUT_OF_RANGE", ""),
        ({"parameters": {"clusterID": "other"}}, "INVALID_ARGUMENT", "clusterID"),
        ({"parameters": {"encrypted": "false"}}, "INVALID_ARGUMENT", "encrypted"),
        ({"mutable_parameters": {"iopz": "5"}}, "INVALID_ARGUMENT", "known are"),
        ({"secrets": {}}, "UNAUTHENTICATED", "Secret"),
        (
            {"secrets": {"sourceEncryptionPassphrase": "wrong"}},
            "UNAUTHENTICATED",
            "Secret",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else json.dumps(value)[:50],
)
@pytest.mark.parametrize("kind", ["volume", "snapshot"])
def test_a_clone_has_to_fit_its_source(
    driver: Driver,
    volume: csi_pb2.Volume,
    snapshot: csi_pb2.Snapshot,
    *,
    kind: str,
    change: dict[str, Any],
    code: str,
    text: str,
) -> None:
    given = (
        of_volume(volume.volume_id)
        if kind == "volume"
        else of_snapshot(snapshot.snapshot_id)
    )
    if "required_bytes" in change:
        change = {"capacity_range": csi_pb2.CapacityRange(**change)}
    if "parameters" in change:
        change = {"parameters": driver.parameters | change["parameters"]}
    if change.get("secrets"):
        secrets = {"encryptionPassphrase": PASSPHRASE + " of the clone"}
        change = {"secrets": secrets | change["secrets"]}
    before, snapshots = driver.ids(), driver.snapshots()
    request = driver.request(**(given | change))
    found, message = refused(driver.controller.CreateVolume, request)
    assert found == code, message
    assert text in message
    assert driver.ids() == before
    assert driver.snapshots() == snapshots


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"name": ""}, "INVALID_ARGUMENT", "name is missing"),
        ({"name": "x" * 129}, "INVALID_ARGUMENT", "129 bytes"),
        ({"name": "a\0b"}, "INVALID_ARGUMENT", "control character"),
        ({"source_volume_id": ""}, "INVALID_ARGUMENT", "source_volume_id is missing"),
        *(({"source_volume_id": each}, "NOT_FOUND", "") for each in NO_VOLUME),
        ({"source_volume_id": ELSEWHERE}, "FAILED_PRECONDITION", "'other'"),
        ({"parameters": {"pool": "rbd"}}, "INVALID_ARGUMENT", "'pool'"),
        ({"parameters": {"a": "x" * 4096}}, "INVALID_ARGUMENT", "4097 bytes"),
    ],
    ids=lambda value: None if isinstance(value, str) else json.dumps(value)[:50],
)
def test_a_snapshot_is_refused_and_not_taken(
    driver: Driver,
    volume: csi_pb2.Volume,
    *,
    change: dict[str, Any],
    code: str,
    text: str,
) -> None:
    given = {"source_volume_id": volume.volume_id, "name": f"bad-{uuid.uuid4()}"}
    before = driver.snapshots()
    request = csi_pb2.CreateSnapshotRequest(**(given | change))
    found, message = refused(driver.controller.CreateSnapshot, request)
    assert found == code, message
    assert text in message
    assert driver.snapshots() == before


def test_a_snapshot_s_name_belongs_to_one_volume(driver: Driver) -> None:
    first, second = driver.create(), driver.create()
    name = "ü" * 46 + str(uuid.uuid4())  # 128 bytes
    taken = driver.take(first.volume_id, name)
    assert driver.take(first.volume_id, name) == taken
    request = csi_pb2.CreateSnapshotRequest(
        source_volume_id=second.volume_id, name=name
    )
    code, message = refused(driver.controller.CreateSnapshot, request)
    assert code == "ALREADY_EXISTS", message
    assert name in message


def test_snapshots_that_do_not_exist(
    driver: Driver, snapshot: csi_pb2.Snapshot
) -> None:
    call = driver.controller
    for each in NO_SNAPSHOT:
        get = csi_pb2.GetSnapshotRequest(snapshot_id=each)
        assert refused(call.GetSnapshot, get)[0] == "NOT_FOUND", each
        call.DeleteSnapshot(csi_pb2.DeleteSnapshotRequest(snapshot_id=each))
        assert not driver.snapshots(snapshot_id=each)
    for each in NO_VOLUME:
        assert not driver.snapshots(source_volume_id=each)
    assert snapshot.snapshot_id in driver.snapshots()
    for method, kind in (
        (call.GetSnapshot, csi_pb2.GetSnapshotRequest),
        (call.DeleteSnapshot, csi_pb2.DeleteSnapshotRequest),
    ):
        missing = "INVALID_ARGUMENT", "snapshot_id is missing"
        assert refused(method, kind()) == missing
        code, message = refused(method, kind(snapshot_id=SNAPSHOT_ELSEWHERE))
        assert code == "FAILED_PRECONDITION"
        assert "'other'" in message


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"max_entries": -1}, "INVALID_ARGUMENT"),
        ({"starting_token": "made up"}, "ABORTED"),
        ({"starting_token": "999999."}, "ABORTED"),
    ],
    ids=["negative", "made up", "nowhere"],
)
def test_snapshots_are_not_listed_from_anywhere(
    driver: Driver, given: dict[str, Any], code: str
) -> None:
    request = csi_pb2.ListSnapshotsRequest(**given)
    assert refused(driver.controller.ListSnapshots, request)[0] == code


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"mutable_parameters": {}}, "INVALID_ARGUMENT", "mutable_parameters"),
        ({"mutable_parameters": {"iopz": "5"}}, "INVALID_ARGUMENT", "known are"),
        ({"mutable_parameters": {"iops": "-1"}}, "INVALID_ARGUMENT", "iops"),
        ({"mutable_parameters": {"bandwidth": "1 MB"}}, "INVALID_ARGUMENT", "100Mi"),
        (
            {"mutable_parameters": {"iops": "5", "bandwidth": "fast"}},
            "INVALID_ARGUMENT",
            "bandwidth",
        ),
        ({"volume_id": ""}, "INVALID_ARGUMENT", "volume_id is missing"),
        *(({"volume_id": each}, "NOT_FOUND", "") for each in NO_VOLUME),
        ({"volume_id": ELSEWHERE}, "FAILED_PRECONDITION", "'other'"),
    ],
    ids=lambda value: None if isinstance(value, str) else json.dumps(value)[:50],
)
def test_limits_that_are_not_understood_are_refused(
    driver: Driver,
    volume: csi_pb2.Volume,
    *,
    change: dict[str, Any],
    code: str,
    text: str,
) -> None:
    given = {"volume_id": volume.volume_id, "mutable_parameters": {"iops": "5"}}
    request = csi_pb2.ControllerModifyVolumeRequest(**(given | change))
    found, message = refused(driver.controller.ControllerModifyVolume, request)
    assert found == code, message
    assert text in message


@pytest.mark.parametrize(
    ("mutable", "confirmed"),
    [
        ({"iops": "5"}, True),
        ({"bandwidth": "0", "iops": "0"}, True),
        ({"iopz": "5"}, False),
        ({"bandwidth": "fast"}, False),
    ],
    ids=json.dumps,
)
def test_validation_confirms_limits_that_would_be_taken(
    driver: Driver, volume: csi_pb2.Volume, mutable: dict[str, str], *, confirmed: bool
) -> None:
    reply = driver.controller.ValidateVolumeCapabilities(
        csi_pb2.ValidateVolumeCapabilitiesRequest(
            volume_id=volume.volume_id,
            volume_capabilities=[capability()],
            mutable_parameters=mutable,
        )
    )
    assert reply.HasField("confirmed") is confirmed, reply.message
    assert bool(reply.message) is not confirmed
    assert dict(reply.confirmed.mutable_parameters) == (mutable if confirmed else {})
