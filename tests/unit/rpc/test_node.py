# SPDX-License-Identifier: Apache-2.0
"""The Node service over a stager in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.sizes import CapacityRange
from csi_driver.rpc import node
from csi_driver.rpc.stubs import csi_pb2

MODE = csi_pb2.VolumeCapability.AccessMode
ID = "v1:memory:1::abc"


def capability(mode: str = "SINGLE_NODE_WRITER") -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(),
        access_mode=MODE(mode=MODE.Mode.Value(mode)),
    )


def stage(**more: Any) -> csi_pb2.NodeStageVolumeRequest:
    given: dict[str, Any] = {
        "volume_id": ID,
        "staging_target_path": "/staging",
        "volume_capability": capability(),
    }
    return csi_pb2.NodeStageVolumeRequest(**(given | more))


def publish(**more: Any) -> csi_pb2.NodePublishVolumeRequest:
    given: dict[str, Any] = {
        "volume_id": ID,
        "staging_target_path": "/staging",
        "target_path": "/target",
        "volume_capability": capability(),
    }
    return csi_pb2.NodePublishVolumeRequest(**(given | more))


def refused(call: Callable[[Any], Any], request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value.code().name, caught.value.details() or ""


def test_stage_passes_everything_on(serving: Any) -> None:
    serving.node.NodeStageVolume(
        stage(volume_context={"a": "b"}, secrets={"encryptionKey": "k"})
    )
    (asked,) = serving.stager.asked
    assert str(asked.volume_id) == ID
    assert asked.staging_path == Path("/staging")
    assert asked.capability.mode is AccessMode.SINGLE_NODE_WRITER
    assert asked.context == {"a": "b"}
    assert asked.secrets == {"encryptionKey": "k"}


def test_publish_passes_everything_on(serving: Any) -> None:
    serving.node.NodePublishVolume(
        publish(readonly=True, volume_context={"a": "b"}, secrets={"k": "s"})
    )
    (asked,) = serving.stager.asked
    assert (asked.staging_path, asked.target_path) == (
        Path("/staging"),
        Path("/target"),
    )
    assert asked.read_only
    assert asked.context == {"a": "b"}
    assert asked.secrets == {"k": "s"}


@pytest.mark.parametrize(
    ("mode", "read_only"),
    [("MULTI_NODE_READER_ONLY", True), ("SINGLE_NODE_MULTI_WRITER", False)],
)
def test_a_reader_s_mode_makes_the_publish_read_only(
    serving: Any, mode: str, read_only: bool
) -> None:
    serving.node.NodePublishVolume(publish(volume_capability=capability(mode)))
    assert serving.stager.asked[0].read_only is read_only


@pytest.mark.parametrize(
    ("call", "request_", "field"),
    [
        ("NodeStageVolume", stage(volume_id=""), "volume_id"),
        ("NodeStageVolume", stage(staging_target_path=""), "staging_target_path"),
        ("NodeStageVolume", stage(staging_target_path="a/b"), "staging_target_path"),
        ("NodeStageVolume", stage(staging_target_path="/a/../b"), "climbs"),
        ("NodeStageVolume", stage(volume_capability=None), "volume_capability"),
        ("NodeStageVolume", stage(volume_context={"a": "b" * 4096}), "volume_context"),
        (
            "NodeUnstageVolume",
            csi_pb2.NodeUnstageVolumeRequest(volume_id=ID),
            "staging_target_path",
        ),
        (
            "NodeUnstageVolume",
            csi_pb2.NodeUnstageVolumeRequest(staging_target_path="/s"),
            "volume_id",
        ),
        ("NodePublishVolume", publish(volume_id=""), "volume_id"),
        ("NodePublishVolume", publish(target_path=""), "target_path"),
        ("NodePublishVolume", publish(target_path="/a\0b"), "NUL"),
        (
            "NodePublishVolume",
            publish(volume_capability=None, staging_target_path=""),
            "volume_capability",
        ),
        (
            "NodeUnpublishVolume",
            csi_pb2.NodeUnpublishVolumeRequest(volume_id="x"),
            "target_path",
        ),
        (
            "NodeUnpublishVolume",
            csi_pb2.NodeUnpublishVolumeRequest(target_path="/t"),
            "volume_id",
        ),
        (
            "NodeGetVolumeStats",
            csi_pb2.NodeGetVolumeStatsRequest(volume_id="x"),
            "volume_path",
        ),
        (
            "NodeGetVolumeStats",
            csi_pb2.NodeGetVolumeStatsRequest(volume_path="some/path"),
            "volume_id",
        ),
        (
            "NodeExpandVolume",
            csi_pb2.NodeExpandVolumeRequest(volume_id=ID),
            "volume_path",
        ),
        (
            "NodeExpandVolume",
            csi_pb2.NodeExpandVolumeRequest(volume_path="/p"),
            "volume_id",
        ),
    ],
    ids=range(18),
)
def test_fields_are_checked_before_anything_happens(
    serving: Any, call: str, request_: Any, field: str
) -> None:
    code, message = refused(getattr(serving.node, call), request_)
    assert code == "INVALID_ARGUMENT"
    assert field in message
    assert not serving.stager.asked


def test_publish_without_a_staging_path_is_a_failed_precondition(serving: Any) -> None:
    code, message = refused(
        serving.node.NodePublishVolume, publish(staging_target_path="")
    )
    assert code == "FAILED_PRECONDITION"
    assert "stage the volume first" in message


@pytest.mark.parametrize("call", ["NodeStageVolume", "NodePublishVolume"])
def test_a_mode_that_no_volume_has_is_a_failed_precondition(
    serving: Any, call: str
) -> None:
    make = stage if call == "NodeStageVolume" else publish
    request = make(volume_capability=capability("MULTI_NODE_MULTI_WRITER"))
    code, message = refused(getattr(serving.node, call), request)
    assert code == "FAILED_PRECONDITION"
    assert "ReadWriteMany" in message


def test_ids_that_are_not_ours_are_not_found(serving: Any) -> None:
    for call, request in (
        ("NodeStageVolume", stage(volume_id="made up")),
        ("NodePublishVolume", publish(volume_id="made up")),
        (
            "NodeUnpublishVolume",
            csi_pb2.NodeUnpublishVolumeRequest(volume_id="made up", target_path="/t"),
        ),
        (
            "NodeGetVolumeStats",
            csi_pb2.NodeGetVolumeStatsRequest(volume_id="made up", volume_path="a/b"),
        ),
        (
            "NodeExpandVolume",
            csi_pb2.NodeExpandVolumeRequest(volume_id="made up", volume_path="a/b"),
        ),
    ):
        assert refused(getattr(serving.node, call), request)[0] == "NOT_FOUND", call
    assert not serving.stager.asked


def test_unstage_of_an_id_that_is_not_ours_is_done(serving: Any) -> None:
    serving.node.NodeUnstageVolume(
        csi_pb2.NodeUnstageVolumeRequest(volume_id="made up", staging_target_path="/s")
    )
    assert not serving.stager.asked


def test_unstage_and_unpublish_pass_id_and_path(serving: Any) -> None:
    serving.node.NodeUnpublishVolume(
        csi_pb2.NodeUnpublishVolumeRequest(volume_id=ID, target_path="/t")
    )
    serving.node.NodeUnstageVolume(
        csi_pb2.NodeUnstageVolumeRequest(volume_id=ID, staging_target_path="/s")
    )
    assert [(str(each[0]), each[1]) for each in serving.stager.asked] == [
        (ID, Path("/t")),
        (ID, Path("/s")),
    ]


def test_stats_have_both_units(serving: Any) -> None:
    reply = serving.node.NodeGetVolumeStats(
        csi_pb2.NodeGetVolumeStatsRequest(volume_id=ID, volume_path="/t")
    )
    first, second = reply.usage
    assert (first.unit, first.total, first.used, first.available) == (
        csi_pb2.VolumeUsage.BYTES,
        100,
        60,
        40,
    )
    assert second.unit == csi_pb2.VolumeUsage.INODES


@pytest.mark.parametrize("call", ["NodeGetVolumeStats", "NodeExpandVolume"])
def test_a_known_volume_is_not_at_a_relative_path(serving: Any, call: str) -> None:
    request = getattr(csi_pb2, f"{call}Request")(volume_id=ID, volume_path="some/path")
    assert refused(getattr(serving.node, call), request)[0] == "NOT_FOUND"


def test_expand_replies_with_the_new_size(serving: Any) -> None:
    reply = serving.node.NodeExpandVolume(
        csi_pb2.NodeExpandVolumeRequest(
            volume_id=ID,
            volume_path="/t",
            capacity_range={"required_bytes": 1 << 21},  # type: ignore[arg-type]  # a dict does too
        )
    )
    assert reply.capacity_bytes == 1 << 21
    assert serving.stager.asked[0].capacity == CapacityRange(1 << 21, 0)


def test_info_and_capabilities(serving: Any) -> None:
    info = serving.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
    assert info.node_id == "node-1"
    assert info.max_volumes_per_node == 0
    assert not info.HasField("accessible_topology")
    found = serving.node.NodeGetCapabilities(
        csi_pb2.NodeGetCapabilitiesRequest()
    ).capabilities
    assert tuple(each.rpc.type for each in found) == node.CAPABILITIES


@pytest.mark.parametrize("name", ["NodeGetVolumeHealth", "NodeGetStorageHealth"])
def test_what_is_not_offered_is_unimplemented(serving: Any, name: str) -> None:
    request = getattr(csi_pb2, f"{name}Request")()
    assert refused(getattr(serving.node, name), request)[0] == "UNIMPLEMENTED"
