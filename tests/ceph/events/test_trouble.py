# SPDX-License-Identifier: Apache-2.0
"""Events are in nobody's way, and give nothing away."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.ceph.end_to_end import secrets_of
from tests.ceph.end_to_end.traces import Canaries
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.events.claims import SOON
from tests.ceph.events.claims import Claims
from tests.ceph.events.claims import refuse_stage
from tests.unit.kube.event_server import EventServer
from tests.unit.kube.event_server import event_server


@pytest.mark.parametrize("trouble", ["slow", "absent", "403"])
def test_an_api_server_in_trouble_delays_no_call_and_no_end(
    world: World, server: EventServer, claims: Claims, trouble: str
) -> None:
    secret = claims.secret()
    bound = claims.new(secret)
    begin = time.monotonic()
    refuse_stage(world.first, bound.volume, {"encryptionPassphrase": "one"})
    usual = time.monotonic() - begin
    service = world.first.service
    with contextlib.ExitStack() as undo:
        if trouble == "slow":
            server.delay = 30.0
            undo.callback(setattr, server, "delay", 0.0)
        elif trouble == "403":
            server.refusing = 403
            undo.callback(setattr, server, "refusing", 0)
        else:
            kubeconfig = service._env["RBDCRYPT_KUBECONFIG"]
            with event_server() as gone:
                path = gone.kubeconfig(world.first.directory)
            service._env["RBDCRYPT_KUBECONFIG"] = str(path)
            undo.callback(service.restart)
            undo.callback(service._env.update, RBDCRYPT_KUBECONFIG=kubeconfig)
            service.restart()
        for number in range(3):
            begin = time.monotonic()
            refuse_stage(
                world.first, bound.volume, {"encryptionPassphrase": f"no {number}"}
            )
            assert time.monotonic() - begin < usual + 1.5
        world.first.stage(bound.volume, secret)
        begin = time.monotonic()
        service.restart()
        assert time.monotonic() - begin < 12
        world.first.unstage(bound.volume)


def test_no_secret_is_in_anything_that_was_posted(
    world: World, server: EventServer, claims: Claims
) -> None:
    """Of this whole module; and of one more volume all that its Secret opens."""
    secret = secrets_of.new_secret("key")
    bound = claims.new(secret)
    (text,) = secret.values()
    for wrong in (
        {"encryptionPassphrase": text},
        {"encryptionKey": text[:-1]},
        {"encryptionKey": text + "="},
        {"encryptionPassphrase": text, "encryptionKey": text},
        {"userID": "nobody", "userKey": text, **secret},
    ):
        refuse_stage(world.first, bound.volume, wrong)
    eventually("posting", lambda: len(bound.events) >= 3, SOON)
    canaries = secrets_of.all_of(world.record(bound.volume), secret, "the last")
    for number, each in enumerate(claims.secrets):
        found = secrets_of.given(each).items()
        canaries |= {f"{number}: {name}": value for name, value in found}
    sent = [(f"request {number}", body) for number, body in enumerate(server.bodies)]
    assert sum(bool(body) for _, body in sent) > 3
    assert Canaries(canaries).found_in(sent) == {}
