# SPDX-License-Identifier: Apache-2.0
"""What is told on the claim of a clone that is refused."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.events.claims import SOON
from tests.ceph.events.claims import Claims
from tests.unit.kube.event_server import EventServer


@pytest.mark.parametrize("answer", [403, 404])
def test_a_clone_whose_sources_secret_cannot_be_read_is_told_what_is_missing(
    world: World, server: EventServer, claims: Claims, answer: int
) -> None:
    """The clone's own claim is told, which has no volume yet."""
    source = claims.new(claims.secret(), secret=("tenant-b", "keys"))
    server.secrets["tenant-b", "keys"] = answer
    with refused(
        grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
    ) as refusal:
        claims.new(claims.secret(), source.volume)
    (event,) = _refused_clones(server)
    server.events.clear()
    assert event["message"] == refusal[0].message
    assert event["type"] == "Warning"
    assert event["involvedObject"]["name"].startswith("claim-")
    assert event["involvedObject"]["uid"].startswith(
        event["involvedObject"]["name"].removeprefix("claim-")
    )
    said = {
        403: "Secret tenant-b/keys may not be read: bind the driver's service account"
        " to a Role in namespace tenant-b that allows the verb get on the resource"
        " secrets for the name keys",
        404: "Secret tenant-b/keys does not exist",
    }
    assert event["message"].startswith(said[answer])


def _refused_clones(server: EventServer) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]]:
        return [each for each in server.events if each["reason"] == "CloneRefused"]

    eventually("CloneRefused", lambda: bool(found()), SOON)
    return found()


def test_a_clone_under_a_readable_secret_is_no_news(
    world: World, server: EventServer, claims: Claims
) -> None:
    secret = claims.secret()
    source = claims.new(secret, secret=("tenant-b", "keys"))
    server.secrets["tenant-b", "keys"] = secret
    clone = claims.new(claims.secret(), source.volume)
    assert clone.reasons == []
