# SPDX-License-Identifier: Apache-2.0
"""The Identity service."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc.stubs import csi_pb2


def test_name_and_version(serving: Any) -> None:
    info = serving.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
    assert (info.name, info.vendor_version) == ("csi.example.org", "1.2.3")


def test_capabilities(serving: Any) -> None:
    found = serving.identity.GetPluginCapabilities(
        csi_pb2.GetPluginCapabilitiesRequest()
    ).capabilities
    kind = csi_pb2.PluginCapability
    assert [each.service.type for each in found if each.HasField("service")] == [
        kind.Service.CONTROLLER_SERVICE
    ]
    assert [
        each.volume_expansion.type
        for each in found
        if each.HasField("volume_expansion")
    ] == [kind.VolumeExpansion.ONLINE]


def test_probe_tells_starting_ready_and_broken_apart(serving: Any) -> None:
    probe = serving.identity.Probe
    reply = probe(csi_pb2.ProbeRequest())
    assert reply.HasField("ready")
    assert not reply.ready.value
    serving.health.check_beside(lambda: None).join(5)
    assert probe(csi_pb2.ProbeRequest()).ready.value

    def broken() -> None:
        message = "this machine's librbd lacks LUKS"
        raise UnavailableError(message)

    serving.health.check(broken)
    with pytest.raises(grpc.RpcError) as caught:
        probe(csi_pb2.ProbeRequest())
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "this machine's librbd lacks LUKS"
