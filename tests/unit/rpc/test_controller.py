# SPDX-License-Identifier: Apache-2.0
"""The Controller service over a provisioner in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.sizes import CapacityRange
from csi_driver.rpc import controller
from csi_driver.rpc.stubs import csi_pb2

MODE = csi_pb2.VolumeCapability.AccessMode
UNKNOWN_ID = "v1:memory:1::fff"


def capability(
    mode: str = "SINGLE_NODE_WRITER", **mount: Any
) -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(**mount),
        access_mode=MODE(mode=MODE.Mode.Value(mode)),
    )


def create(**more: Any) -> csi_pb2.CreateVolumeRequest:
    given: dict[str, Any] = {"name": "pvc-1", "volume_capabilities": [capability()]}
    return csi_pb2.CreateVolumeRequest(**(given | more))


def refused(call: Callable[[Any], Any], request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value.code().name, caught.value.details() or ""


def test_create_passes_everything_on_and_reports_the_rounded_size(serving: Any) -> None:
    reply = serving.controller.CreateVolume(
        create(
            capacity_range={"required_bytes": 4097, "limit_bytes": 1 << 20},
            volume_capabilities=[capability(fs_type="xfs", mount_flags=["noatime"])],
            parameters={"clusterID": "c", "pool": "rbd"},
            secrets={"encryptionPassphrase": "hunter2"},
        )
    )
    asked = serving.provisioner.asked[0]
    assert asked.name == "pvc-1"
    assert asked.capacity == CapacityRange(4097, 1 << 20)
    assert asked.capabilities[0].mode is AccessMode.SINGLE_NODE_WRITER
    assert asked.parameters == {"clusterID": "c", "pool": "rbd"}
    assert asked.secrets == {"encryptionPassphrase": "hunter2"}
    assert reply.volume.capacity_bytes == 8192
    assert reply.volume.volume_id == "v1:memory:1::0abc"
    assert dict(reply.volume.volume_context) == {"encryption": "keyring"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": ""}, "name is missing"),
        ({"name": "x" * 129}, "129 bytes"),
        ({"name": "ü" * 65}, "130 bytes"),
        ({"name": "a\nb"}, "control character"),
        ({"volume_capabilities": []}, "volume_capabilities"),
        (
            {"volume_capabilities": [capability("MULTI_NODE_MULTI_WRITER")]},
            "ReadWriteMany",
        ),
        (
            {"volume_capabilities": [capability("MULTI_NODE_SINGLE_WRITER")]},
            "stale blocks",
        ),
        ({"volume_capabilities": [capability(fs_type="btrfs")]}, "ext4, xfs"),
        ({"volume_content_source": {}}, "neither snapshot nor volume"),
        ({"volume_content_source": {"volume": {}}}, "volume_id is missing"),
        ({"volume_content_source": {"snapshot": {}}}, "snapshot_id is missing"),
        ({"mutable_parameters": {"a": "x" * 4096}}, "mutable_parameters has 4097"),
        ({"parameters": {"a": "x" * 4096}}, "4 KiB|4097 bytes"),
        ({"capacity_range": {"required_bytes": -1}}, "negative"),
        ({"capacity_range": {}}, "neither"),
        ({"capacity_range": {"required_bytes": 2, "limit_bytes": 1}}, "below"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_create_refuses_what_is_malformed(
    serving: Any, change: dict[str, Any], text: str
) -> None:
    code, message = refused(serving.controller.CreateVolume, create(**change))
    assert code == "INVALID_ARGUMENT"
    assert any(part in message for part in text.split("|"))
    assert not serving.provisioner.asked


@pytest.mark.parametrize("size", [(1 << 63) - 1, (1 << 53) + 1])
def test_create_refuses_sizes_that_no_image_has(serving: Any, size: int) -> None:
    code, _ = refused(
        serving.controller.CreateVolume, create(capacity_range={"required_bytes": size})
    )
    assert code == "OUT_OF_RANGE"


@pytest.mark.parametrize("name", ["x" * 128, "../../etc", "ü" * 64, "a b/c", "..."])
def test_create_takes_every_name_that_csi_allows(serving: Any, name: str) -> None:
    serving.controller.CreateVolume(create(name=name))
    assert name in serving.provisioner.volumes


def test_create_again_is_the_same_volume_and_another_size_is_refused(
    serving: Any,
) -> None:
    first = serving.controller.CreateVolume(create())
    assert serving.controller.CreateVolume(create()) == first
    code, _ = refused(
        serving.controller.CreateVolume,
        create(capacity_range={"required_bytes": 1 << 33}),
    )
    assert code == "ALREADY_EXISTS"


@pytest.mark.parametrize("text", ["nonsense", "v1:x", UNKNOWN_ID, "x" * 300])
def test_delete_of_what_does_not_exist_is_done(serving: Any, text: str) -> None:
    serving.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=text))


def test_delete_deletes(serving: Any) -> None:
    made = serving.controller.CreateVolume(create()).volume
    serving.controller.DeleteVolume(
        csi_pb2.DeleteVolumeRequest(volume_id=made.volume_id)
    )
    assert not serving.provisioner.volumes


def test_every_volume_id_has_to_be_there(serving: Any) -> None:
    for call, request in (
        (serving.controller.DeleteVolume, csi_pb2.DeleteVolumeRequest()),
        (serving.controller.ControllerGetVolume, csi_pb2.ControllerGetVolumeRequest()),
        (
            serving.controller.ControllerExpandVolume,
            csi_pb2.ControllerExpandVolumeRequest(capacity_range={"required_bytes": 1}),  # type: ignore[arg-type]  # a dict does too
        ),
        (
            serving.controller.ControllerModifyVolume,
            csi_pb2.ControllerModifyVolumeRequest(mutable_parameters={"iops": "1"}),
        ),
        (
            serving.controller.ValidateVolumeCapabilities,
            csi_pb2.ValidateVolumeCapabilitiesRequest(
                volume_capabilities=[capability()]
            ),
        ),
    ):
        code, message = refused(call, request)
        assert code == "INVALID_ARGUMENT"
        assert "volume_id" in message


@pytest.mark.parametrize("text", ["nonsense", UNKNOWN_ID, "x" * 300])
def test_unknown_ids_are_not_found(serving: Any, text: str) -> None:
    for call, request in (
        (
            serving.controller.ControllerGetVolume,
            csi_pb2.ControllerGetVolumeRequest(volume_id=text),
        ),
        (
            serving.controller.ControllerExpandVolume,
            csi_pb2.ControllerExpandVolumeRequest(
                volume_id=text,
                capacity_range={"required_bytes": 1},  # type: ignore[arg-type]  # a dict does too
            ),
        ),
        (
            serving.controller.ControllerModifyVolume,
            csi_pb2.ControllerModifyVolumeRequest(
                volume_id=text, mutable_parameters={"iops": "1"}
            ),
        ),
        (
            serving.controller.ValidateVolumeCapabilities,
            csi_pb2.ValidateVolumeCapabilitiesRequest(
                volume_id=text, volume_capabilities=[capability()]
            ),
        ),
        (
            serving.controller.ValidateVolumeCapabilities,
            csi_pb2.ValidateVolumeCapabilitiesRequest(
                volume_id=text,
                volume_capabilities=[capability()],
                mutable_parameters={"iopz": "5"},
            ),
        ),
        (
            serving.controller.ValidateVolumeCapabilities,
            csi_pb2.ValidateVolumeCapabilitiesRequest(
                volume_id=text, volume_capabilities=[capability(fs_type="btrfs")]
            ),
        ),
    ):
        assert refused(call, request)[0] == "NOT_FOUND"


def test_validate_confirms_what_it_was_asked(serving: Any) -> None:
    made = serving.controller.CreateVolume(create()).volume
    request = csi_pb2.ValidateVolumeCapabilitiesRequest(
        volume_id=made.volume_id,
        volume_capabilities=[capability(), capability("MULTI_NODE_READER_ONLY")],
        volume_context=made.volume_context,
        parameters={"pool": "rbd"},
        mutable_parameters={"iops": "500", "bandwidth": "100Mi"},
    )
    reply = serving.controller.ValidateVolumeCapabilities(request)
    assert not reply.message
    assert list(reply.confirmed.volume_capabilities) == list(
        request.volume_capabilities
    )
    assert reply.confirmed.volume_context == request.volume_context
    assert reply.confirmed.parameters == request.parameters
    assert reply.confirmed.mutable_parameters == request.mutable_parameters


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            {"volume_capabilities": [capability("MULTI_NODE_MULTI_WRITER")]},
            "ReadWriteMany",
        ),
        ({"volume_capabilities": [capability(fs_type="btrfs")]}, "btrfs"),
        ({"mutable_parameters": {"iopz": "5"}}, "iopz"),
        ({"mutable_parameters": {"iops": "-1"}}, "iops"),
    ],
    ids=["mode", "filesystem", "unknown mutable", "senseless mutable"],
)
def test_validate_says_no_in_a_message(
    serving: Any, asked: dict[str, Any], text: str
) -> None:
    made = serving.controller.CreateVolume(create()).volume
    given = {"volume_capabilities": [capability()], "volume_id": made.volume_id}
    request = csi_pb2.ValidateVolumeCapabilitiesRequest(**(given | asked))
    reply = serving.controller.ValidateVolumeCapabilities(request)
    assert not reply.HasField("confirmed")
    assert text in reply.message


def test_list_pages(serving: Any) -> None:
    for number in range(3):
        serving.controller.CreateVolume(create(name=f"pvc-{number}"))
    reply = serving.controller.ListVolumes(csi_pb2.ListVolumesRequest(max_entries=2))
    assert len(reply.entries) == 2
    assert serving.provisioner.asked[-1] == ("", 2)
    assert not reply.entries[0].HasField("status")
    code, _ = refused(
        serving.controller.ListVolumes, csi_pb2.ListVolumesRequest(max_entries=-1)
    )
    assert code == "INVALID_ARGUMENT"


def test_capacity(serving: Any) -> None:
    reply = serving.controller.GetCapacity(
        csi_pb2.GetCapacityRequest(parameters={"pool": "rbd"})
    )
    assert reply.available_capacity == 1 << 40
    assert reply.maximum_volume_size.value == 1 << 39
    assert reply.minimum_volume_size.value == 4096


def test_capacity_is_asked_for_with_a_class_as_it_stands(serving: Any) -> None:
    """csi-provisioner 6.3 sends the references to Secrets, too, unlike for a volume."""
    reference = "csi.storage.k8s.io/provisioner-secret"
    given = {f"{reference}-name": "${pvc.name}", f"{reference}-namespace": "n"}
    request = csi_pb2.GetCapacityRequest(parameters={"pool": "rbd", **given})
    assert serving.controller.GetCapacity(request).available_capacity == 1 << 40
    assert serving.provisioner.asked[-1] == ({"pool": "rbd"}, ())


def test_get_has_a_status_without_nodes(serving: Any) -> None:
    made = serving.controller.CreateVolume(create()).volume
    reply = serving.controller.ControllerGetVolume(
        csi_pb2.ControllerGetVolumeRequest(volume_id=made.volume_id)
    )
    assert reply.volume == made
    assert reply.HasField("status")
    assert not reply.status.published_node_ids


def test_expand_replies_with_the_request_to_the_byte(serving: Any) -> None:
    made = serving.controller.CreateVolume(create()).volume
    wanted = 12_345 * 4096
    request = csi_pb2.ControllerExpandVolumeRequest(volume_id=made.volume_id)
    code, _ = refused(serving.controller.ControllerExpandVolume, request)
    assert code == "INVALID_ARGUMENT"
    request.capacity_range.required_bytes = wanted
    reply = serving.controller.ControllerExpandVolume(request)
    assert reply.capacity_bytes == wanted
    assert reply.node_expansion_required


def test_modify_passes_on_what_is_named(serving: Any) -> None:
    made = serving.controller.CreateVolume(create()).volume
    request = csi_pb2.ControllerModifyVolumeRequest(
        volume_id=made.volume_id, mutable_parameters={"bandwidth": "1Mi"}
    )
    serving.controller.ControllerModifyVolume(request)
    assert serving.provisioner.asked[-1] == {"bandwidth": "1Mi"}


@pytest.mark.parametrize(
    ("mutable", "text"),
    [
        ({}, "mutable_parameters is missing"),
        ({"iopz": "5"}, "iopz"),
        ({"iops": "many"}, "iops"),
        ({"iops": "x" * 4096}, "mutable_parameters has 4100 bytes"),
    ],
    ids=["none", "unknown", "senseless", "large"],
)
def test_modify_refuses_what_is_not_understood(
    serving: Any, mutable: dict[str, str], text: str
) -> None:
    made = serving.controller.CreateVolume(create()).volume
    request = csi_pb2.ControllerModifyVolumeRequest(
        volume_id=made.volume_id, mutable_parameters=mutable
    )
    code, message = refused(serving.controller.ControllerModifyVolume, request)
    assert code == "INVALID_ARGUMENT"
    assert text in message


def test_capabilities_are_those_offered(serving: Any) -> None:
    found = serving.controller.ControllerGetCapabilities(
        csi_pb2.ControllerGetCapabilitiesRequest()
    ).capabilities
    assert tuple(each.rpc.type for each in found) == controller.CAPABILITIES


@pytest.mark.parametrize(
    "name",
    [
        "ControllerPublishVolume",
        "ControllerUnpublishVolume",
        "ControllerGetVolumeHealth",
        "ControllerListVolumeHealth",
    ],
)
def test_what_is_not_offered_is_unimplemented(serving: Any, name: str) -> None:
    request = getattr(csi_pb2, f"{name}Request")()
    code, message = refused(getattr(serving.controller, name), request)
    assert code == "UNIMPLEMENTED"
    assert name in message
