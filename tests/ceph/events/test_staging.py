# SPDX-License-Identifier: Apache-2.0
"""What is told on a claim when its volume is staged, or cannot be."""

from __future__ import annotations

import os
import re
import signal
from typing import Final

import grpc

from csi_driver.rpc.stubs import csi_pb2
from tests.ceph.end_to_end.client import block
from tests.ceph.end_to_end.client import refused
from tests.ceph.end_to_end.client import succeeds
from tests.ceph.end_to_end.world import Machine
from tests.ceph.end_to_end.world import World
from tests.ceph.end_to_end.world import eventually
from tests.ceph.events.claims import SOON
from tests.ceph.events.claims import Claims
from tests.ceph.events.claims import refuse_stage
from tests.unit.kube.event_server import EventServer

FINGERPRINT: Final = re.compile(
    r"(?:fingerprint|expects) ([0-9a-f]{4}(?:-[0-9a-f]{4}){3})\b"
)


def test_a_wrong_secret_is_one_event_with_both_fingerprints(
    world: World, claims: Claims
) -> None:
    """However often kubelet tries; and a stage with the right one adds nothing."""
    secret = claims.secret("passphrase")
    bound = claims.new(secret)
    wrong = {"encryptionPassphrase": "not this one"}
    messages = {refuse_stage(world.first, bound.volume, wrong) for _ in range(4)}
    (message,) = messages
    eventually(
        "counting", lambda: [each["count"] for each in bound.events] == [4], SOON
    )
    (event,) = bound.events
    assert event["message"] == message
    assert len(set(FINGERPRINT.findall(message))) == 2
    record = world.record(bound.volume)
    assert record.ring is not None
    assert str(record.ring.fingerprint) in message
    assert event["reason"] == "WrongSecret"
    assert event["type"] == "Warning"
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": "tenant-a",
        "name": bound.claim,
        "uid": bound.uid,
    }
    assert event["source"] == {"component": "rbdcrypt-csi", "host": "node-a"}
    assert event["reportingComponent"] == "csi.rbdcrypt.io"
    before = bound.events
    world.first.stage(bound.volume, secret)
    world.first.unstage(bound.volume)
    assert bound.events == before


def test_a_volume_in_use_names_its_holder_on_the_claim(
    world: World, second: Machine, claims: Claims
) -> None:
    world.join(second)
    secret = claims.secret()
    bound = claims.new(secret)
    world.first.stage(bound.volume, secret)
    refuse_stage(second, bound.volume, secret)
    event = bound.await_reason("VolumeInUse")
    assert "in use on node 'node-a'" in event["message"]
    assert event["reportingInstance"] == "node-b"
    assert bound.reasons == ["VolumeInUse"]
    world.first.unstage(bound.volume)


def test_a_reader_elsewhere_is_a_holder_too(
    world: World, second: Machine, claims: Claims
) -> None:
    world.join(second)
    secret = claims.secret()
    reading = block(csi_pb2.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY)
    bound = claims.new(secret, capability=block())
    world.first.stage(bound.volume, secret, reading)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        second.client.stage(bound.volume, second.staging(bound.volume), secret, block())
    event = bound.await_reason("VolumeInUse")
    assert "staged read-only on node 'node-a'" in event["message"]
    world.first.unstage(bound.volume)


def test_a_dead_holder_is_fenced_and_told_of(
    world: World, second: Machine, claims: Claims
) -> None:
    world.join(second)
    secret = claims.secret()
    bound = claims.new(secret)
    world.first.stage(bound.volume, secret)
    frozen = world.first.worker_pid(bound.volume)
    os.kill(frozen, signal.SIGSTOP)
    try:
        eventually(
            "taking over",
            lambda: succeeds(
                lambda: second.stage(bound.volume, secret),
                grpc.StatusCode.FAILED_PRECONDITION,
            ),
            60,
        )
    finally:
        os.kill(frozen, signal.SIGCONT)
    event = bound.await_reason("HolderFenced")
    assert event["message"].startswith("node 'node-a' held the volume")
    assert "opened on node 'node-b'" in event["message"]
    assert event["type"] == "Warning"
    second.unstage(bound.volume)


def test_a_dead_export_is_told_on_claim_and_pod(
    world: World, server: EventServer, claims: Claims
) -> None:
    secret = claims.secret()
    bound = claims.new(secret)
    pod = bound.used_by("1-2-3")
    world.first.stage(bound.volume, secret)
    # The pod is known to the next node service, too.
    world.first.service.restart()
    os.kill(world.first.worker_pid(bound.volume), signal.SIGKILL)
    event = bound.await_reason("ExportLost", 40)
    assert "SIGKILL" in event["message"]
    eventually("the pod's", lambda: bool(server.about(pod, "Pod")), SOON)
    (on_pod,) = server.about(pod, "Pod")
    assert on_pod["message"] == event["message"]
    assert on_pod["involvedObject"]["uid"] == "1-2-3"
    world.first.unstage(bound.volume)


def test_a_volume_without_a_claim_costs_nothing(
    world: World, server: EventServer, claims: Claims
) -> None:
    """As one that a test or a person made by hand: no PersistentVolume is known."""
    volume = world.create(claims.secret())
    before = len(server.events)
    refuse_stage(world.first, volume, {"encryptionPassphrase": "not this one"})
    eventually("looking", lambda: "no claim known" in world.first.service.log, SOON)
    assert len(server.events) == before
