# SPDX-License-Identifier: Apache-2.0
"""Snapshots and clones of the Controller service, over a provisioner in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.rpc.stubs import csi_pb2

MODE = csi_pb2.VolumeCapability.AccessMode
UNKNOWN_VOLUME = "v1:memory:1::fff"
UNKNOWN_SNAPSHOT = "s1:memory:1::fff:7"
UNDECODABLE = ["nonsense", "s1:x", "s1:memory:1::fff:0", "x" * 300]
ERRORS = [
    (InvalidRequestError, "INVALID_ARGUMENT"),
    (NotFoundError, "NOT_FOUND"),
    (AlreadyExistsError, "ALREADY_EXISTS"),
    (PendingError, "ABORTED"),
    (CancelledError, "ABORTED"),
    (PreconditionError, "FAILED_PRECONDITION"),
    (InUseError, "FAILED_PRECONDITION"),
    (SizeError, "OUT_OF_RANGE"),
    (ExhaustedError, "RESOURCE_EXHAUSTED"),
    (SecretError, "UNAUTHENTICATED"),
    (UnavailableError, "UNAVAILABLE"),
]


def create(
    serving: Any, name: str = "pvc-1", source: dict[str, Any] | None = None
) -> csi_pb2.Volume:
    writer = csi_pb2.VolumeCapability(
        block=csi_pb2.VolumeCapability.BlockVolume(),
        access_mode=MODE(mode=MODE.SINGLE_NODE_WRITER),
    )
    given: dict[str, Any] = {"name": name, "volume_capabilities": [writer]}
    if source is not None:
        given["volume_content_source"] = source
    found: csi_pb2.Volume = serving.controller.CreateVolume(
        csi_pb2.CreateVolumeRequest(**given)
    ).volume
    return found


def take(serving: Any, volume_id: str, name: str = "snap-1") -> csi_pb2.Snapshot:
    request = csi_pb2.CreateSnapshotRequest(source_volume_id=volume_id, name=name)
    found: csi_pb2.Snapshot = serving.controller.CreateSnapshot(request).snapshot
    return found


def listed(serving: Any, **given: Any) -> list[str]:
    reply = serving.controller.ListSnapshots(csi_pb2.ListSnapshotsRequest(**given))
    return [entry.snapshot.snapshot_id for entry in reply.entries]


def refused(call: Callable[..., Any], *given: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*given, **more)
    return caught.value.code().name, caught.value.details() or ""


def raiser(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


def test_a_snapshot_passes_everything_on_and_shows_the_size_to_restore(
    serving: Any,
) -> None:
    made = create(serving)
    parameters = {"csi.storage.k8s.io/volumesnapshot/name": "mine"}
    found = serving.controller.CreateSnapshot(
        csi_pb2.CreateSnapshotRequest(
            source_volume_id=made.volume_id,
            name="snap-1",
            parameters=parameters,
            secrets={"userID": "tenant"},
        )
    ).snapshot
    asked = next(
        each
        for each in serving.provisioner.asked
        if hasattr(each, "parameters") and each.name == "snap-1"
    )
    assert asked.volume == VolumeId.parse(made.volume_id)
    assert asked.parameters == parameters
    assert found.snapshot_id == "s1:memory:1::0abc:1"
    assert found.source_volume_id == made.volume_id
    assert found.size_bytes == made.capacity_bytes
    assert found.creation_time.ToNanoseconds() == 1_700_000_000_123_456_789
    assert found.ready_to_use
    assert not found.group_snapshot_id


def test_a_snapshot_taken_again_is_the_same(serving: Any) -> None:
    made, other = create(serving), create(serving, "pvc-2")
    first = take(serving, made.volume_id)
    assert take(serving, made.volume_id) == first
    code, message = refused(take, serving, other.volume_id)
    assert code == "ALREADY_EXISTS"
    assert "snap-1" in message


@pytest.mark.parametrize("name", ["x" * 128, "../../etc", "ü" * 64, "a b/c", "..."])
def test_every_name_that_csi_allows_is_taken(serving: Any, name: str) -> None:
    take(serving, create(serving).volume_id, name)
    assert name in serving.provisioner.snapshots


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": ""}, "name is missing"),
        ({"name": "x" * 129}, "129 bytes"),
        ({"name": "ü" * 65}, "130 bytes"),
        ({"name": "a\nb"}, "control character"),
        ({"source_volume_id": ""}, "source_volume_id is missing"),
        ({"parameters": {"a": "x" * 4096}}, "parameters has 4097 bytes"),
    ],
    ids=["no name", "129", "130 of umlauts", "control", "no source", "large map"],
)
def test_what_is_malformed_is_refused(
    serving: Any, change: dict[str, Any], text: str
) -> None:
    given = {"name": "snap-1", "source_volume_id": UNKNOWN_VOLUME} | change
    request = csi_pb2.CreateSnapshotRequest(**given)
    code, message = refused(serving.controller.CreateSnapshot, request)
    assert code == "INVALID_ARGUMENT"
    assert text in message
    assert not serving.provisioner.asked


def test_a_snapshot_id_has_to_be_there(serving: Any) -> None:
    for call, request in (
        (serving.controller.DeleteSnapshot, csi_pb2.DeleteSnapshotRequest()),
        (serving.controller.GetSnapshot, csi_pb2.GetSnapshotRequest()),
    ):
        code, message = refused(call, request)
        assert code == "INVALID_ARGUMENT"
        assert "snapshot_id is missing" in message


@pytest.mark.parametrize("text", [*UNDECODABLE, UNKNOWN_SNAPSHOT, UNKNOWN_VOLUME])
def test_what_does_not_exist(serving: Any, text: str) -> None:
    made = create(serving)
    take(serving, made.volume_id)
    call = serving.controller
    call.DeleteSnapshot(csi_pb2.DeleteSnapshotRequest(snapshot_id=text))
    get = csi_pb2.GetSnapshotRequest(snapshot_id=text)
    assert refused(call.GetSnapshot, get)[0] == "NOT_FOUND"
    assert refused(take, serving, text)[0] == "NOT_FOUND"
    assert not listed(serving, snapshot_id=text)
    assert not listed(serving, source_volume_id=text)
    for source in (
        {"snapshot": {"snapshot_id": text}},
        {"volume": {"volume_id": text}},
    ):
        assert refused(create, serving, "pvc-2", source)[0] == "NOT_FOUND"
    assert len(serving.provisioner.snapshots) == 1
    assert list(serving.provisioner.volumes) == ["pvc-1"]


@pytest.mark.parametrize(("kind", "code"), ERRORS)
def test_every_failure_has_its_code(
    serving: Any, kind: type[DriverError], code: str
) -> None:
    serving.provisioner.before = raiser(kind("why not"))
    delete = csi_pb2.DeleteSnapshotRequest(snapshot_id=UNKNOWN_SNAPSHOT)
    get = csi_pb2.GetSnapshotRequest(snapshot_id=UNKNOWN_SNAPSHOT)
    modify = csi_pb2.ControllerModifyVolumeRequest(
        volume_id=UNKNOWN_VOLUME, mutable_parameters={"iops": "1"}
    )
    source = {"volume": {"volume_id": UNKNOWN_VOLUME}}
    for call, given in (
        (take, (serving, UNKNOWN_VOLUME)),
        (create, (serving, "pvc-1", source)),
        (serving.controller.DeleteSnapshot, (delete,)),
        (serving.controller.GetSnapshot, (get,)),
        (serving.controller.ControllerModifyVolume, (modify,)),
    ):
        assert refused(call, *given) == (code, "why not")
    if code != "NOT_FOUND":
        assert refused(listed, serving) == (code, "why not")


def test_deleting_and_getting(serving: Any) -> None:
    taken = take(serving, create(serving).volume_id)
    get = csi_pb2.GetSnapshotRequest(snapshot_id=taken.snapshot_id)
    assert serving.controller.GetSnapshot(get).snapshot == taken
    delete = csi_pb2.DeleteSnapshotRequest(snapshot_id=taken.snapshot_id)
    serving.controller.DeleteSnapshot(delete)
    assert not serving.provisioner.snapshots


def test_listing_pages_and_tokens(serving: Any) -> None:
    made = create(serving)
    taken = [
        take(serving, made.volume_id, f"snap-{number}").snapshot_id
        for number in range(5)
    ]
    found, token = [], ""
    while True:
        request = csi_pb2.ListSnapshotsRequest(max_entries=2, starting_token=token)
        reply = serving.controller.ListSnapshots(request)
        assert len(reply.entries) <= 2
        found += [entry.snapshot.snapshot_id for entry in reply.entries]
        token = reply.next_token
        if not token:
            break
    assert found == taken
    assert listed(serving) == taken
    assert serving.provisioner.asked[-1] == ("", 0, None)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"max_entries": -1}, "INVALID_ARGUMENT"),
        ({"starting_token": "made up"}, "ABORTED"),
        ({"starting_token": "2", "snapshot_id": UNKNOWN_SNAPSHOT}, "ABORTED"),
    ],
    ids=["negative", "made up", "of another list"],
)
def test_listing_refuses_senseless_pages(
    serving: Any, given: dict[str, Any], code: str
) -> None:
    assert refused(listed, serving, **given)[0] == code


def test_listing_takes_both_filters_together(serving: Any) -> None:
    first, second = create(serving), create(serving, "pvc-2")
    one = take(serving, first.volume_id, "snap-1").snapshot_id
    two = take(serving, second.volume_id, "snap-2").snapshot_id
    assert listed(serving, source_volume_id=second.volume_id) == [two]
    assert listed(serving, snapshot_id=one) == [one]
    both = {"snapshot_id": one, "source_volume_id": first.volume_id}
    assert listed(serving, **both) == [one]
    assert not listed(serving, **(both | {"source_volume_id": second.volume_id}))


def test_a_clone_shows_its_source_wherever_it_is_shown(serving: Any) -> None:
    made = create(serving)
    taken = take(serving, made.volume_id)
    for name, source in (
        ("of a volume", {"volume": {"volume_id": made.volume_id}}),
        ("of a snapshot", {"snapshot": {"snapshot_id": taken.snapshot_id}}),
    ):
        clone = create(serving, name, source)
        given: Any = source
        expected = csi_pb2.VolumeContentSource(**given)
        assert clone.content_source == expected
        get = csi_pb2.ControllerGetVolumeRequest(volume_id=clone.volume_id)
        assert serving.controller.ControllerGetVolume(get).volume == clone
        entries = serving.controller.ListVolumes(csi_pb2.ListVolumesRequest()).entries
        assert clone in [entry.volume for entry in entries]
        assert create(serving, name, source) == clone
    assert not made.HasField("content_source")


def test_a_source_reaches_the_provisioner_with_the_mutable_parameters(
    serving: Any,
) -> None:
    taken = take(serving, create(serving).volume_id)
    writer = csi_pb2.VolumeCapability(
        block=csi_pb2.VolumeCapability.BlockVolume(),
        access_mode=MODE(mode=MODE.SINGLE_NODE_WRITER),
    )
    source = csi_pb2.VolumeContentSource.SnapshotSource(snapshot_id=taken.snapshot_id)
    serving.provisioner.asked.clear()
    serving.controller.CreateVolume(
        csi_pb2.CreateVolumeRequest(
            name="pvc-2",
            volume_capabilities=[writer],
            volume_content_source=csi_pb2.VolumeContentSource(snapshot=source),
            mutable_parameters={"iops": "500"},
        )
    )
    asked = serving.provisioner.asked[0]
    assert asked.source == SnapshotId.parse(taken.snapshot_id)
    assert asked.mutable == {"iops": "500"}
