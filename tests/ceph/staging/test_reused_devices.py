# SPDX-License-Identifier: Apache-2.0
"""A device's name is used again by the next volume, which must not be mistaken."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import OpenVolume
from csi_driver.domain.errors import ExportLostError
from csi_driver.provisioning.requests import VolumeInfo
from tests.ceph.staging.harness import BLOCK_WRITER
from tests.ceph.staging.harness import WRITER
from tests.ceph.staging.harness import CreateVolume
from tests.ceph.staging.harness import Node
from tests.ceph.staging.harness import read_device
from tests.ceph.staging.harness import write_device

TENANT = b"bytes of another tenant"


def stage_on(path: Path, node: Node, volume: VolumeInfo) -> None:
    """Stage a block volume until it has that device, which others use, too."""
    for _ in range(50):
        node.stage(volume, BLOCK_WRITER)
        status = node.datapath.status(volume.volume_id)
        assert status is not None
        assert status.device is not None
        if status.device.path == path:
            return
        node.unstage(volume)
        time.sleep(0.1)
    pytest.fail(f"{path} is not used again")


def test_no_filesystem_is_made_on_another_volumes_device(
    node: Node, create: CreateVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export dies right after it was opened; another volume gets its device."""
    first, second = create(), create(capability=BLOCK_WRITER)
    really_open = node.datapath.open

    def lost_at_once(volume: OpenVolume) -> OpenedVolume:
        monkeypatch.setattr(node.datapath, "open", really_open)
        opened = really_open(volume)
        node.datapath.close(volume.volume_id)
        stage_on(opened.device.path, node, second)
        write_device(opened.device.path, TENANT)
        return opened

    monkeypatch.setattr(node.datapath, "open", lost_at_once)
    with pytest.raises(ExportLostError, match="another"):
        node.stage(first, WRITER)
    status = node.datapath.status(second.volume_id)
    assert status is not None
    assert status.device is not None
    assert read_device(status.device.path, len(TENANT)) == TENANT
    node.stage(first, WRITER)


def test_a_pod_never_sees_another_volume_through_a_dead_device(
    node: Node, create: CreateVolume
) -> None:
    first, second = create(capability=BLOCK_WRITER), create(capability=BLOCK_WRITER)
    node.stage(first, BLOCK_WRITER)
    target = node.publish(first, BLOCK_WRITER)
    node.stop_datapath(signal.SIGKILL)
    node.start_datapath()
    node.stage(second, BLOCK_WRITER)
    status = node.datapath.status(second.volume_id)
    assert status is not None
    assert status.device is not None
    write_device(status.device.path, TENANT)
    with pytest.raises(OSError, match="Input/output error"):
        read_device(target, len(TENANT))
    node.unpublish(first)
    node.unstage(first)
    assert read_device(status.device.path, len(TENANT)) == TENANT
