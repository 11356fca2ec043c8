# SPDX-License-Identifier: Apache-2.0
"""csi-sanity 5.6.0, whole, against the servers on real Ceph.

Nothing may fail, and nothing may be skipped but what belongs to a capability
that the services do not advertise.
"""

from __future__ import annotations

import dataclasses
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc

CONTROLLER = csi_pb2.ControllerServiceCapability.RPC
NODE = csi_pb2.NodeServiceCapability.RPC
PLUGIN = csi_pb2.PluginCapability.Service

REASONS = {
    "ControllerPublishVolume not supported": (
        "controller",
        CONTROLLER.PUBLISH_UNPUBLISH_VOLUME,
    ),
    "ControllerUnpublishVolume not supported": (
        "controller",
        CONTROLLER.PUBLISH_UNPUBLISH_VOLUME,
    ),
    "Controller Publish, UnpublishVolume not supported": (
        "controller",
        CONTROLLER.PUBLISH_UNPUBLISH_VOLUME,
    ),
    "ControllerPublishVolume.readonly field not supported": (
        "controller",
        CONTROLLER.PUBLISH_READONLY,
    ),
    "ControllerGetVolumeHealth not supported": (
        "controller",
        CONTROLLER.GET_VOLUME_HEALTH,
    ),
    "ControllerListVolumeHealth not supported": (
        "controller",
        CONTROLLER.LIST_VOLUME_HEALTH,
    ),
    "NodeGetVolumeHealth not supported": ("node", NODE.GET_VOLUME_HEALTH),
    "NodeGetStorageHealth not supported": ("node", NODE.GET_STORAGE_HEALTH),
    "GroupControllerService not supported": ("plugin", PLUGIN.GROUP_CONTROLLER_SERVICE),
    "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported": (
        "plugin",
        PLUGIN.SNAPSHOT_ACCESSIBILITY_CONSTRAINTS,
    ),
}
"""Why csi-sanity may skip a spec, and the capability that its reason stands for.

Snapshots, clones and mutable parameters are not among them: those have to run."""

PENDING = (
    "pagination should detect volumes added between pages and accept tokens when the"
    " last volume from a page is deleted"
)
"""The one spec that csi-sanity itself has switched off."""

FEWEST_PASSED = 79
"""Specs that run for a driver with our capabilities; fewer means a broken run."""


MUTABLE = 'iops: "500"\nbandwidth: 100Mi\n'
"""The parameters of a VolumeAttributesClass."""

SNAPSHOT = (
    "csi.storage.k8s.io/volumesnapshot/name: mine\n"
    "csi.storage.k8s.io/volumesnapshot/namespace: team\n"
    "csi.storage.k8s.io/volumesnapshotcontent/name: snapcontent-1\n"
)
"""What csi-snapshotter adds to those of a VolumeSnapshotClass."""


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """One spec of the report."""

    name: str
    status: str
    text: str


@pytest.fixture(scope="module")
def claimed(sanity: Any) -> dict[str, set[int]]:
    """Return the advertised capabilities of both servers."""
    with (
        grpc.insecure_channel(sanity.controller) as to_controller,
        grpc.insecure_channel(sanity.node) as to_node,
    ):
        controller = csi_pb2_grpc.ControllerStub(to_controller)
        node = csi_pb2_grpc.NodeStub(to_node)
        plugins = [
            csi_pb2_grpc.IdentityStub(channel).GetPluginCapabilities(
                csi_pb2.GetPluginCapabilitiesRequest()
            )
            for channel in (to_controller, to_node)
        ]
        assert plugins[0] == plugins[1], "both servers have to say the same"
        return {
            "controller": {
                each.rpc.type
                for each in controller.ControllerGetCapabilities(
                    csi_pb2.ControllerGetCapabilitiesRequest()
                ).capabilities
            },
            "node": {
                each.rpc.type
                for each in node.NodeGetCapabilities(
                    csi_pb2.NodeGetCapabilitiesRequest()
                ).capabilities
            },
            "plugin": {each.service.type for each in plugins[0].capabilities},
        }


def specs(report: Path) -> Iterator[Spec]:
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # csi-sanity wrote it
        name = case.get("name", "")
        if not name.startswith("[It]"):
            continue
        reason = case.find("skipped")
        if reason is None:
            reason = case.find("failure")
        text = "" if reason is None else reason.get("message", "")
        yield Spec(name.removeprefix("[It] "), case.get("status", ""), text)


def run(sanity: Any, place: Path, access: str, parameters: str) -> list[Spec]:
    """Run csi-sanity and return what its report says."""
    given = place / "parameters.yaml"
    given.write_text(sanity.parameters.read_text() + parameters)
    mutable = place / "mutable.yaml"
    mutable.write_text(MUTABLE)
    snapshot = place / "snapshot.yaml"
    snapshot.write_text(SNAPSHOT)
    report = place / "report.xml"
    subprocess.run(
        [
            sanity.program,
            f"--csi.endpoint={sanity.node}",
            f"--csi.controllerendpoint={sanity.controller}",
            f"--csi.secrets={sanity.secrets}",
            f"--csi.testvolumeparameters={given}",
            f"--csi.testvolumemutableparameters={mutable}",
            f"--csi.testsnapshotparameters={snapshot}",
            f"--csi.testvolumeaccesstype={access}",
            f"--csi.testvolumesize={1 << 30}",
            f"--csi.testvolumeexpandsize={2 << 30}",
            f"--csi.mountdir={place / 'mount'}",
            f"--csi.stagingdir={place / 'staging'}",
            f"--csi.junitfile={report}",
            "--ginkgo.no-color",
        ],
        check=False,  # the report tells more than the exit status
    )
    return list(specs(report))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("access", "parameters"),
    [
        pytest.param("mount", "", id="mount"),
        pytest.param("block", "", id="block"),
        pytest.param("mount", "csi.storage.k8s.io/fstype: xfs\n", id="mount-xfs"),
        pytest.param("block", 'encrypted: "false"\n', id="block-plaintext"),
    ],
)
def test_csi_sanity(
    sanity: Any,
    claimed: dict[str, set[int]],
    tmp_path: Path,
    access: str,
    parameters: str,
) -> None:
    found = run(sanity, tmp_path, access, parameters)
    by_status: dict[str, list[Spec]] = {}
    for spec in found:
        by_status.setdefault(spec.status, []).append(spec)
    passed = by_status.pop("passed", [])
    skipped = by_status.pop("skipped", [])
    pending = by_status.pop("pending", [])
    assert not by_status, "\n".join(
        f"{spec.name}: {spec.text}" for specs in by_status.values() for spec in specs
    )
    assert len(passed) >= FEWEST_PASSED
    assert all(PENDING in spec.name for spec in pending), pending
    for spec in skipped:
        reason = spec.text.removeprefix("skipped - ")
        assert reason in REASONS, f"{spec.name} was skipped: {reason}"
        service, capability = REASONS[reason]
        assert capability not in claimed[service], (
            f"{spec.name} was skipped though its capability is advertised: {reason}"
        )
