# SPDX-License-Identifier: Apache-2.0
"""One node's CSI service, called directly in its pod: what kubelet would send.

Kubernetes' own attach controller refuses a second node before the driver is
asked, so that what the driver itself does can only be seen from its socket.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Final

from tests.cluster.kube import Kube
from tests.cluster.kube import Object
from tests.cluster.parts import DRIVER
from tests.cluster.parts import NAMESPACE
from tests.cluster.parts import pod_on

_STAGE: Final = """
import json, sys
import grpc
from csi_driver.rpc.stubs import csi_pb2, csi_pb2_grpc
asked = json.load(sys.stdin)
mount = csi_pb2.VolumeCapability.MountVolume(fs_type=asked["fs_type"])
mode = csi_pb2.VolumeCapability.AccessMode(
    mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER
)
with grpc.insecure_channel("unix:" + asked["socket"]) as channel:
    node = csi_pb2_grpc.NodeStub(channel)
    try:
        node.NodeStageVolume(csi_pb2.NodeStageVolumeRequest(
            volume_id=asked["volume_id"],
            volume_context=asked["context"],
            staging_target_path=asked["path"],
            secrets=asked["secrets"],
            volume_capability=csi_pb2.VolumeCapability(mount=mount, access_mode=mode),
        ), timeout=100)
    except grpc.RpcError as error:
        print(json.dumps([error.code().name, error.details()]))
    else:
        print(json.dumps(["OK", ""]))
    # As kubelet does, too, after a stage that failed.
    node.NodeUnstageVolume(csi_pb2.NodeUnstageVolumeRequest(
        volume_id=asked["volume_id"], staging_target_path=asked["path"],
    ), timeout=100)
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Code and message of a call."""

    code: str
    message: str


def stage(kube: Kube, node: str, volume: Object, secrets: dict[str, str]) -> Answer:
    """Call NodeStageVolume on a node for a PersistentVolume, and then unstage it."""
    pod = pod_on(kube, "node", node)
    source = volume["spec"]["csi"]
    plugin = f"/var/lib/kubelet/plugins/{DRIVER}"
    asked = {
        "socket": f"{plugin}/csi.sock",
        "path": f"{plugin}/staged-by-a-test",
        "volume_id": source["volumeHandle"],
        "context": dict(source.get("volumeAttributes") or {}),
        "fs_type": source.get("fsType") or "ext4",
        "secrets": secrets,
    }
    output = kube.feed(
        pod,
        NAMESPACE,
        ["/opt/rbdcrypt/bin/python", "-c", _STAGE],
        json.dumps(asked),
    )
    code, message = json.loads(output.splitlines()[-1])
    return Answer(code, message)
