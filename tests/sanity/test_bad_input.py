# SPDX-License-Identifier: Apache-2.0
"""Bad input at the real sockets: its code, one readable sentence, no change."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.rpc.stubs import csi_pb2
from tests.sanity.client import MODE
from tests.sanity.client import PASSPHRASE
from tests.sanity.client import Driver
from tests.sanity.client import capability
from tests.sanity.client import refused


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"name": ""}, "INVALID_ARGUMENT", "name is missing"),
        ({"name": "x" * 129}, "INVALID_ARGUMENT", "129 bytes"),
        ({"name": "a\0b"}, "INVALID_ARGUMENT", "control character"),
        ({"required_bytes": 0}, "INVALID_ARGUMENT", "neither"),
        ({"required_bytes": -1}, "INVALID_ARGUMENT", "negative"),
        ({"required_bytes": (1 << 63) - 1}, "OUT_OF_RANGE", "at most"),
        ({"required_bytes": 8192, "limit_bytes": 4096}, "INVALID_ARGUMENT", "below"),
        ({"required_bytes": 4097, "limit_bytes": 4098}, "OUT_OF_RANGE", "limit"),
        ({"parameters": {"encrypt": "no"}}, "INVALID_ARGUMENT", "known are"),
        ({"parameters": {"encrypted": "maybe"}}, "INVALID_ARGUMENT", '"true"'),
        ({"parameters": {"clusterID": "other"}}, "INVALID_ARGUMENT", "clusterID"),
        ({"parameters": {"pool": "nowhere"}}, "INVALID_ARGUMENT", "nowhere"),
        ({"parameters": {"radosNamespace": "x"}}, "INVALID_ARGUMENT", "configured"),
        ({"parameters": {"dataPool": "nowhere"}}, "INVALID_ARGUMENT", "nowhere"),
        ({"parameters": {"imageFeatures": "journaling"}}, "INVALID_ARGUMENT", "journ"),
        ({"mutable_parameters": {"iopz": "5"}}, "INVALID_ARGUMENT", "known are"),
        ({"mutable_parameters": {"iops": "-1"}}, "INVALID_ARGUMENT", "iops"),
        ({"volume_content_source": {}}, "INVALID_ARGUMENT", "neither"),
        ({"secrets": {}}, "UNAUTHENTICATED", "encryptionPassphrase"),
        ({"secrets": {"encryptionPassphrase": ""}}, "UNAUTHENTICATED", "empty"),
        ({"secrets": {"encryptionPassphrase": "a\0b"}}, "UNAUTHENTICATED", "NUL"),
        ({"secrets": {"encryptionPassphrase": "a\n"}}, "UNAUTHENTICATED", "newline"),
        ({"secrets": {"encryptionKey": "c2hvcnQ="}}, "UNAUTHENTICATED", "32 bytes"),
    ],
    ids=lambda value: None if isinstance(value, str) else json.dumps(value)[:50],
)
def test_create_refuses_and_changes_nothing(
    driver: Driver, change: dict[str, Any], code: str, text: str
) -> None:
    sizes = {key: change[key] for key in change if key.endswith("_bytes")}
    if sizes:
        change = {"capacity_range": csi_pb2.CapacityRange(**sizes)}
    if "parameters" in change:
        change = {"parameters": driver.parameters | change["parameters"]}
    before = driver.ids()
    found, message = refused(driver.controller.CreateVolume, driver.request(**change))
    assert found == code, message
    assert text in message
    assert driver.ids() == before


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "x" * 128, "ü" * 64, "a/b:c@d", "."],
    ids=["traversal", "128", "128 of umlauts", "separators", "dot"],
)
def test_names_that_csi_allows_are_names_and_nothing_else(
    driver: Driver, name: str
) -> None:
    unique = name if len(name) > 60 else f"{name}-{uuid.uuid4()}"
    made = driver.create(name=unique)
    assert made.volume_id in driver.ids()
    assert driver.create(name=unique) == made


def test_a_name_that_is_not_utf8_is_an_invalid_argument(
    driver: Driver, sanity: Any
) -> None:
    raw = driver.request(name="xx").SerializeToString().replace(b"xx", b"\xff\xfe", 1)
    with grpc.insecure_channel(sanity.controller) as channel:
        call = channel.unary_unary(
            "/csi.v1.Controller/CreateVolume",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        code, message = refused(call, raw)
    assert code == "INVALID_ARGUMENT"
    assert "UTF-8" in message


def test_one_byte_is_one_block(driver: Driver) -> None:
    smallest = csi_pb2.CapacityRange(required_bytes=1)
    made = driver.create(
        capacity_range=smallest,
        volume_capabilities=[
            csi_pb2.VolumeCapability(
                block=csi_pb2.VolumeCapability.BlockVolume(),
                access_mode=MODE(mode=MODE.SINGLE_NODE_WRITER),
            )
        ],
    )
    assert made.capacity_bytes == 4096


def stage(
    made: csi_pb2.Volume, place: Path, **change: Any
) -> csi_pb2.NodeStageVolumeRequest:
    given: dict[str, Any] = {
        "volume_id": made.volume_id,
        "staging_target_path": str(place),
        "volume_capability": capability(),
        "volume_context": made.volume_context,
        "secrets": {"encryptionPassphrase": PASSPHRASE},
    }
    return csi_pb2.NodeStageVolumeRequest(**(given | change))


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"secrets": {}}, "UNAUTHENTICATED", "encryptionPassphrase"),
        ({"secrets": {"encryptionPassphrase": "wrong"}}, "UNAUTHENTICATED", "Secret"),
        ({"volume_context": {}}, "INVALID_ARGUMENT", "encryption"),
        ({"volume_context": {"encryption": "none"}}, "FAILED_PRECONDITION", "none"),
        ({"volume_id": "v1:lab:1::0123456789ab"}, "NOT_FOUND", "0123456789ab"),
        ({"volume_id": "made up"}, "NOT_FOUND", "made up"),
    ],
    ids=["no secret", "wrong secret", "no mode", "downgrade", "unknown", "undecodable"],
)
def test_stage_refuses_and_mounts_nothing(
    driver: Driver,
    volume: csi_pb2.Volume,
    tmp_path: Path,
    *,
    change: dict[str, Any],
    code: str,
    text: str,
) -> None:
    place = tmp_path / "staging"
    place.mkdir()
    found, message = refused(
        driver.node.NodeStageVolume, stage(volume, place, **change)
    )
    assert found == code, message
    assert text in message
    assert not place.is_mount()


def test_the_right_secret_stages_after_the_wrong_one(
    driver: Driver, volume: csi_pb2.Volume, tmp_path: Path
) -> None:
    place = tmp_path / "staging"
    place.mkdir()
    driver.node.NodeStageVolume(stage(volume, place))
    assert place.is_mount()
    try:
        for target in targets(tmp_path):
            request = csi_pb2.NodePublishVolumeRequest(
                volume_id=volume.volume_id,
                staging_target_path=str(place),
                target_path=str(target),
                volume_capability=capability(),
                volume_context=volume.volume_context,
            )
            code, message = refused(driver.node.NodePublishVolume, request)
            assert code in {"ALREADY_EXISTS", "FAILED_PRECONDITION"}, message
            assert str(target) in message
        assert (tmp_path / "file").read_text() == "precious"
        assert (tmp_path / "link").is_symlink()
    finally:
        driver.node.NodeUnstageVolume(
            csi_pb2.NodeUnstageVolumeRequest(
                volume_id=volume.volume_id, staging_target_path=str(place)
            )
        )
    assert not place.is_mount()


def targets(place: Path) -> Iterator[Path]:
    """Make target paths that hold something else."""
    file = place / "file"
    file.write_text("precious")
    yield file
    link = place / "link"
    link.symlink_to(place / "elsewhere")
    yield link
