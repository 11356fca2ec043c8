# SPDX-License-Identifier: Apache-2.0
"""A clone that is refused is told on its claim; what may pass is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import CephKeyError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.sizes import CapacityRange
from csi_driver.kube.api import KubernetesApi
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.telling import refusals_told
from csi_driver.rpc.status import describe
from tests.unit.kube.event_server import event_server
from tests.unit.staging.exports import Heard

UID = "8c1a0c3e-5555-4000-8000-0123456789ab"
SOURCE = VolumeId(Location("lab", 1), "a1")
REQUEST = CreateRequest(
    name=f"pvc-{UID}",
    capacity=CapacityRange(),
    capabilities=(),
    parameters={
        "csi.storage.k8s.io/pvc/name": "copy",
        "csi.storage.k8s.io/pvc/namespace": "tenant-a",
    },
    source=SOURCE,
)


def told(request: CreateRequest, error: DriverError) -> list[Notice]:
    heard = Heard()
    with pytest.raises(type(error)), refusals_told(heard, request):
        raise error
    return heard.notices


@pytest.mark.parametrize(
    "kind",
    [
        ForbiddenError,
        InvalidRequestError,
        NotFoundError,
        PreconditionError,
        SecretError,
        SizeError,
        UnsupportedError,
    ],
)
def test_a_refusal_that_stays_is_told_on_the_clones_claim(
    kind: type[DriverError],
) -> None:
    claim = Claim("tenant-a", "copy", UID)
    expected = Notice(Happening.CLONE_REFUSED, claim, "the reason")
    assert told(REQUEST, kind("the reason")) == [expected]


@pytest.mark.parametrize(
    "kind",
    [
        AlreadyExistsError,
        CephKeyError,
        ExhaustedError,
        InternalError,
        PendingError,
        UnavailableError,
    ],
)
def test_what_no_tenant_can_change_is_the_provisioners_to_tell(
    kind: type[DriverError],
) -> None:
    assert told(REQUEST, kind("the reason")) == []


def test_a_volume_that_is_no_clone_is_the_provisioners_to_tell() -> None:
    empty = dataclasses.replace(REQUEST, source=None)
    assert told(empty, SecretError("the reason")) == []


def test_without_the_provisioners_metadata_nobody_is_told() -> None:
    bare = dataclasses.replace(REQUEST, parameters={})
    assert told(bare, SecretError("the reason")) == []


@pytest.mark.parametrize("length", [10, 253])
def test_the_missing_role_is_named_before_anything_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Kubelet and the sidecars cut at 1 KiB, and put words of their own before it."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    namespace, name = "n" * min(length, 63), "k" * length
    with event_server() as server:
        server.secrets[namespace, name] = 403
        api = KubernetesApi(server.kubeconfig(tmp_path))
        secrets = SourceSecrets("csi.rbdcrypt.io", api, api)
        with pytest.raises(ForbiddenError) as caught:
            secrets.read(SecretRef(namespace, name), f"volume {'v' * 128!r}")
        api.close()
    shown = describe(caught.value).message[:850]
    assert shown.startswith(f"Secret {namespace}/{name} may not be read")
    assert f"a Role in namespace {namespace} that allows the verb get" in shown
    assert f"on the resource secrets for the name {name}" in shown
