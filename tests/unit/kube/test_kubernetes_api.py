# SPDX-License-Identifier: Apache-2.0
"""What becomes of the API server's answers, one by one."""

from __future__ import annotations

import base64
import json
import logging
import time
import traceback
from typing import TYPE_CHECKING
from typing import Any

import pytest

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.notices import Claim
from csi_driver.domain.parameters import SecretRef
from csi_driver.kube.api import KubernetesApi
from csi_driver.kube.contract import CsiVolumeSource
from csi_driver.kube.contract import EventWriter
from csi_driver.kube.contract import SecretReader
from csi_driver.kube.contract import VolumeReader

if TYPE_CHECKING:
    from tests.unit.kube.conftest import ApiServer
    from tests.unit.kube.conftest import MakeApi

TOKEN = "canary-api-token"
CANARY = "canary-passphrase"
KEYS = SecretRef("tenant-a", "volume-keys")
PATH = "/api/v1/namespaces/tenant-a/secrets/volume-keys"


def _secret(**data: bytes) -> dict[str, Any]:
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    return {"kind": "Secret", "apiVersion": "v1", "data": encoded}


def test_a_secret_is_read_with_the_token(server: ApiServer, api: KubernetesApi) -> None:
    server.object(_secret(encryptionPassphrase=CANARY.encode(), empty=b""))
    found = api.read_secret(KEYS)
    assert found == {"encryptionPassphrase": CANARY, "empty": ""}
    assert server.requests == [(PATH, f"Bearer {TOKEN}")]


def test_it_is_what_callers_depend_on(api: KubernetesApi) -> None:
    """Mypy says whether the class fulfils the protocols."""
    roles: tuple[SecretReader, VolumeReader, EventWriter] = (api, api, api)
    assert roles


def test_a_secret_without_data_is_empty(server: ApiServer, api: KubernetesApi) -> None:
    server.object({"kind": "Secret"})
    assert api.read_secret(KEYS) == {}


@pytest.mark.parametrize("value", [b"\xff" + CANARY.encode(), b"\xed\xa0\x80"])
def test_a_value_that_is_no_text_is_refused(
    server: ApiServer, api: KubernetesApi, value: bytes
) -> None:
    server.object(_secret(good=b"x", encryptionPassphrase=value))
    said = r"volume-keys.*encryptionPassphrase"
    with pytest.raises(SecretError, match=said) as caught:
        api.read_secret(KEYS)
    assert _hides(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        CANARY.encode(),
        b'{"data": ["' + CANARY.encode() + b'"]}',
        b'{"data": "' + CANARY.encode() + b'"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=["empty", "list", "text", "list data", "text data", "deep", "binary"],
)
def test_an_answer_that_is_no_secret_is_refused(
    server: ApiServer, api: KubernetesApi, body: bytes
) -> None:
    server.will({"body": body})
    with pytest.raises(InternalError, match="tenant-a/volume-keys") as caught:
        api.read_secret(KEYS)
    assert _hides(caught.value)


@pytest.mark.parametrize(
    "value", ["%%%", "QUJD\n!", "\u0660", 7, True, None, {"a": "b"}]
)
def test_a_value_that_is_no_base64_is_refused(
    server: ApiServer, api: KubernetesApi, value: object
) -> None:
    server.object({"data": {"encryptionKey": value}})
    with pytest.raises(SecretError, match="encryptionKey"):
        api.read_secret(KEYS)


def test_a_huge_answer_is_not_read_whole(server: ApiServer, api: KubernetesApi) -> None:
    server.will({"body": b"x" * (5 * 1024 * 1024)})
    with pytest.raises(PreconditionError, match="larger"):
        api.read_secret(KEYS)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (404, NotFoundError, "Secret tenant-a/volume-keys does not exist: create it"),
        (403, ForbiddenError, "Role in namespace tenant-a .* get .* secrets"),
        (401, ForbiddenError, "does not accept the driver's credentials"),
        (400, InternalError, "answers 400"),
        (302, InternalError, "answers 302"),
    ],
)
def test_a_final_answer_is_asked_for_once(
    server: ApiServer,
    api: KubernetesApi,
    status: int,
    kind: type[DriverError],
    said: str,
) -> None:
    server.will({"status": status, "body": CANARY.encode()})
    with pytest.raises(kind, match=said) as caught:
        api.read_secret(KEYS)
    assert len(server.requests) == 1
    assert _hides(caught.value)


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 429},
        {"status": 500},
        {"status": 503, "body": b"x"},
        {"silent": True},
        {"body": b"{}" * 99, "hang": True},
        {"body": b"{}" * 99, "cut": True},
    ],
    ids=["429", "500", "503", "silent", "hang", "cut"],
)
def test_passing_trouble_is_tried_again(
    server: ApiServer, api: KubernetesApi, trouble: dict[str, Any]
) -> None:
    good = json.dumps(_secret(encryptionPassphrase=b"x")).encode()
    server.will(trouble, trouble, {"body": good})
    start = time.monotonic()
    assert api.read_secret(KEYS) == {"encryptionPassphrase": "x"}
    assert len(server.requests) == 3
    # Never as long as the server's Retry-After of 30 s.
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"status": 429}, "answers 429"),
        ({"status": 500}, "answers 500"),
        ({"status": 599}, "answers 599"),
        ({"silent": True}, "does not answer in time"),
        ({"body": b"{}" * 99, "hang": True}, "does not answer in time"),
        (
            {"body": b"{}" * 99, "cut": True},
            "connection to the API server at http://.* failed",
        ),
    ],
    ids=["429", "500", "599", "silent", "hang", "cut"],
)
def test_lasting_trouble_ends_in_bounded_time(
    server: ApiServer, api: KubernetesApi, trouble: dict[str, Any], said: str
) -> None:
    server.will(trouble)
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=said):
        api.read_secret(KEYS)
    assert time.monotonic() - start < 5
    assert len(server.requests) == 3


def test_a_refused_connection_is_unavailable(
    make_api: MakeApi, closed_port: int
) -> None:
    address = f"http://127.0.0.1:{closed_port}"
    said = f"at {address} refuses the connection; .*; look whether .*kube-proxy"
    with pytest.raises(UnavailableError, match=said):
        make_api(address).read_secret(KEYS)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://nowhere.invalid:6443", "has a name without an address"),
        ("http://[::ffff:255.255.255.255]:1", r"cannot be reached \(.+\)"),
    ],
    ids=["no address", "no way"],
)
def test_what_cannot_be_connected_to_says_why(
    make_api: MakeApi, address: str, said: str
) -> None:
    with pytest.raises(UnavailableError, match=said):
        make_api(address).read_secret(KEYS)


@pytest.mark.parametrize(
    "reference",
    [
        SecretRef("", "x"),
        SecretRef("x", ""),
        SecretRef("..", "x"),
        SecretRef("a/b", "x"),
        SecretRef("a.b", "x"),
        SecretRef("A", "x"),
        SecretRef("x", ".."),
        SecretRef("x", "a/../b"),
        SecretRef("x", "a..b"),
        SecretRef("x", "a?b"),
        SecretRef("x", "a%2fb"),
        SecretRef("x", "a\n"),
        SecretRef("x" * 64, "x"),
        SecretRef("x", "x" * 254),
    ],
)
def test_a_name_that_is_none_never_reaches_the_server(
    server: ApiServer, api: KubernetesApi, reference: SecretRef
) -> None:
    with pytest.raises(InvalidRequestError):
        api.read_secret(reference)
    assert server.requests == []


def _volume(**csi: object) -> dict[str, Any]:
    return {"spec": {"csi": {"driver": "d", "volumeHandle": "h", **csi}}}


def test_a_persistent_volume_is_read(server: ApiServer, api: KubernetesApi) -> None:
    reference = {"name": "volume-keys", "namespace": "tenant-a"}
    server.object(_volume(nodeStageSecretRef=reference))
    assert api.read_persistent_volume("pvc-1") == CsiVolumeSource("d", "h", KEYS)
    assert server.requests[0][0] == "/api/v1/persistentvolumes/pvc-1"
    server.object(_volume())
    assert api.read_persistent_volume("pvc-1") == CsiVolumeSource("d", "h", None)


@pytest.mark.parametrize(
    ("reference", "claim"),
    [
        (
            {"namespace": "tenant-a", "name": "data", "uid": "1-2"},
            Claim("tenant-a", "data", "1-2"),
        ),
        ({"namespace": "tenant-a", "name": "data"}, Claim("tenant-a", "data")),
        (
            {"namespace": "tenant-a", "name": "data", "uid": 7},
            Claim("tenant-a", "data"),
        ),
        (None, None),
        ("tenant-a/data", None),
        ({"namespace": "tenant-a"}, None),
        ({"namespace": 7, "name": "data"}, None),
        ({"namespace": "..", "name": "data"}, None),
        ({"namespace": "tenant-a", "name": "a/../b"}, None),
    ],
)
def test_what_a_persistent_volume_is_bound_to(
    server: ApiServer,
    api: KubernetesApi,
    reference: object,
    claim: Claim | None,
) -> None:
    volume = _volume()
    volume["spec"]["claimRef"] = reference
    server.object(volume)
    assert api.read_persistent_volume("pvc-1").claim == claim


@pytest.mark.parametrize(
    ("namespace", "name"), [("..", "x"), ("a/b", "x"), ("", "x"), ("x", "a/../b")]
)
def test_no_event_goes_to_a_path_that_is_none(
    server: ApiServer, api: KubernetesApi, namespace: str, name: str
) -> None:
    with pytest.raises(InvalidRequestError):
        api.change_event(namespace, name, {})
    if namespace != "x":
        with pytest.raises(InvalidRequestError):
            api.create_event(namespace, {})
    assert server.requests == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"spec": {"nfs": {}}}, PreconditionError),
        ({}, PreconditionError),
        ({"spec": "x"}, PreconditionError),
        (_volume(driver=""), PreconditionError),
        (_volume(volumeHandle=7), PreconditionError),
        (_volume(nodeStageSecretRef="x"), InternalError),
        (_volume(nodeStageSecretRef={"name": "x"}), PreconditionError),
        (
            _volume(nodeStageSecretRef={"name": "../x", "namespace": "a"}),
            InvalidRequestError,
        ),
    ],
)
def test_an_unfit_persistent_volume_is_refused(
    server: ApiServer,
    api: KubernetesApi,
    value: dict[str, Any],
    kind: type[DriverError],
) -> None:
    server.object(value)
    with pytest.raises(kind):
        api.read_persistent_volume("pvc-1")


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (404, NotFoundError, "PersistentVolume pvc-1 does not exist"),
        (403, ForbiddenError, "ClusterRole .* get .* persistentvolumes"),
    ],
)
def test_a_persistent_volume_out_of_reach(
    server: ApiServer,
    api: KubernetesApi,
    status: int,
    kind: type[DriverError],
    said: str,
) -> None:
    server.will({"status": status})
    with pytest.raises(kind, match=said):
        api.read_persistent_volume("pvc-1")


def _hides(error: BaseException) -> bool:
    """Tell whether an error, with all it carries along, hides both canaries."""
    seen: list[BaseException | None] = [error, error.__context__, error.__cause__]
    texts = [repr(vars(e)) + repr(e.args) for e in seen if e is not None]
    text = "".join([*texts, *traceback.format_exception(error)])
    return CANARY not in text and TOKEN not in text


def test_no_log_line_shows_a_secret(
    server: ApiServer,
    api: KubernetesApi,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    leak = json.dumps(_secret(encryptionPassphrase=CANARY.encode())).encode()
    server.will({"status": 500, "body": leak}, {"body": leak})
    assert api.read_secret(KEYS) == {"encryptionPassphrase": CANARY}
    spoken = "".join([caplog.text, *capfd.readouterr()])
    assert "500" in spoken  # the retry itself is logged
    for secret in (CANARY, TOKEN, base64.b64encode(CANARY.encode()).decode()):
        assert secret not in spoken
