# SPDX-License-Identifier: Apache-2.0
"""What doctor asks the API server: objects, rights, version and clock."""

from __future__ import annotations

import datetime as dt
import json
import time

import pytest

from csi_driver.domain.errors import CredentialsError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import UnavailableError
from csi_driver.kube.api import KubernetesApi
from csi_driver.kube.examined import Right
from tests.unit.kube.conftest import ApiServer
from tests.unit.kube.conftest import MakeApi


def test_the_server_tells_its_version_and_its_clock(
    server: ApiServer, api: KubernetesApi
) -> None:
    server.object({"gitVersion": "v1.36.3"})
    found = api.server()
    assert found.version == "v1.36.3"
    assert found.date is not None
    assert abs((found.date - dt.datetime.now(dt.UTC)).total_seconds()) < 60
    assert server.requests[0][0] == "/version"


def test_any_object_can_be_looked_at(server: ApiServer, api: KubernetesApi) -> None:
    server.object({"items": [1, 2]})
    assert api.look_at("/apis/x/v1/things", "things") == {"items": [1, 2]}
    assert server.requests[0][0] == "/apis/x/v1/things"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFoundError), (403, ForbiddenError), (401, CredentialsError)],
)
def test_refusals_have_classes_of_their_own(
    server: ApiServer, api: KubernetesApi, status: int, kind: type[Exception]
) -> None:
    server.will({"status": status})
    with pytest.raises(kind, match="things"):
        api.look_at("/apis/x/v1/things", "things")


def test_what_is_no_object_is_an_error(server: ApiServer, api: KubernetesApi) -> None:
    server.will({"body": b"[]"})
    with pytest.raises(InternalError, match="things"):
        api.look_at("/apis/x/v1/things", "things")


def test_no_server_at_all(make_api: MakeApi, closed_port: int) -> None:
    begin = time.monotonic()
    with pytest.raises(UnavailableError, match="version of the API server"):
        make_api(f"http://127.0.0.1:{closed_port}").server()
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("answer", [True, False])
def test_a_right_is_asked_for(
    server: ApiServer, api: KubernetesApi, answer: bool
) -> None:
    server.object({"status": {"allowed": answer}})
    right = Right("get", "secrets", namespace="vault", name="key")
    assert api.may(right) is answer
    (path, _) = server.requests[0]
    assert path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert json.loads(server.bodies[0]) == right.review()


def test_a_review_that_says_nothing(server: ApiServer, api: KubernetesApi) -> None:
    server.object({"status": {}})
    with pytest.raises(InternalError, match="neither yes nor no"):
        api.may(Right("get", "secrets"))


def test_what_a_review_asks() -> None:
    right = Right("list", "csidrivers", group="storage.k8s.io")
    assert str(right) == "list csidrivers.storage.k8s.io"
    review = right.review()
    assert json.loads(json.dumps(review))["spec"]["resourceAttributes"] == {
        "verb": "list",
        "group": "storage.k8s.io",
        "resource": "csidrivers",
    }
    assert str(Right("get", "secrets", namespace="a", name="b")) == (
        "get secrets b in namespace a"
    )
