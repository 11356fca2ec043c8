# SPDX-License-Identifier: Apache-2.0
"""Notices become Events at an API server, and never in the way of a call."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from pathlib import Path

import pytest

from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Notices
from csi_driver.kube.correlation import BURST
from csi_driver.kube.correlation import REFILL
from csi_driver.kube.correlation import WINDOW
from csi_driver.kube.event_objects import LONGEST_MESSAGE
from csi_driver.kube.events import MOST_WAITING
from csi_driver.kube.events import EventCounts
from csi_driver.kube.events import Events
from tests.unit.events.world import CLAIM
from tests.unit.events.world import POD
from tests.unit.events.world import WRONG
from tests.unit.events.world import World


def test_they_are_notices() -> None:
    """Mypy says whether the class fulfils the protocol."""
    kind: type[Notices] = Events
    assert kind


def test_a_notice_about_a_volume_is_an_event_on_its_claim(world: World) -> None:
    assert world.tell(WRONG) == EventCounts(posted=1)
    (event,) = world.server.events
    name = event["metadata"].pop("name")
    assert name.startswith("data.")
    first, last = event.pop("firstTimestamp"), event.pop("lastTimestamp")
    assert first == last
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "tenant-a"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": "tenant-a",
            "name": "data",
            "uid": CLAIM.uid,
        },
        "reason": "WrongSecret",
        "message": "volume 'x': the Secret is wrong",
        "type": "Warning",
        "source": {"component": "rbdcrypt-csi", "host": "node-a"},
        "reportingComponent": "csi.rbdcrypt.io",
        "reportingInstance": "node-a",
        "count": 1,
    }


def test_a_notice_about_a_pod_or_a_claim_needs_no_volume(world: World) -> None:
    world.tell(
        Notice(Happening.POOL_FULL, POD, "full"),
        Notice(Happening.CLONE_REFUSED, Claim("tenant-b", "copy"), "refused"),
    )
    pod, claim = world.server.events
    assert pod["involvedObject"]["kind"] == "Pod"
    assert pod["involvedObject"]["uid"] == POD.uid
    assert claim["metadata"]["namespace"] == "tenant-b"
    assert "uid" not in claim["involvedObject"]
    assert world.looked == []


@pytest.mark.parametrize("what", list(Happening))
def test_only_what_alarms_is_a_warning(world: World, what: Happening) -> None:
    world.tell(Notice(what, CLAIM, "x"))
    (event,) = world.server.events
    assert event["reason"] == what.value
    good = {"FlattenStarted", "FlattenProgress", "Flattened", "PoolHasRoom"}
    assert event["type"] == ("Normal" if what.value in good else "Warning")


def test_the_documented_numbers_are_the_real_ones() -> None:
    text = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
    words = " ".join(text.split())
    assert f"within {WINDOW / 60:.0f} minutes" in words
    assert f"gets {BURST} requests at once and then one a minute" in words
    assert REFILL == 60
    assert f"a queue of {MOST_WAITING}" in words
    assert f"at most {LONGEST_MESSAGE} characters" in words
    for fate in dataclasses.asdict(EventCounts()):
        assert f"`{fate}`" in words


def test_what_is_spelt_like_a_key_is_never_posted(world: World) -> None:
    key = "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="
    cephx = "AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw=="
    world.tell(Notice(Happening.WRONG_SECRET, CLAIM, f"key {key}, user {cephx}."))
    sent = b"".join(world.server.bodies)
    assert key.encode() not in sent
    assert cephx.encode() not in sent
    assert world.server.events[0]["message"] == "key ***, user ***."


@pytest.mark.parametrize("length", [1023, 1024, 1025, 5000])
def test_a_message_is_one_clean_line_that_kubernetes_takes(
    world: World, length: int
) -> None:
    text = "decisive\n\x1b[31m\x00 ü " + "x" * length
    world.tell(Notice(Happening.WRONG_SECRET, CLAIM, text[:length]))
    (event,) = world.server.events
    assert event["message"].startswith("decisive ?[31m? ü xx")
    assert event["message"].isprintable()
    assert len(event["message"]) <= 1024
    assert event["message"].endswith("..." if length > 1024 else "x")


def test_names_of_any_length_make_events(world: World) -> None:
    for name in ("a", "a" * 253, "a." * 120 + "b"):
        world.tell(Notice(Happening.WRONG_SECRET, Claim("tenant-a", name), "x"))
    names = [event["metadata"]["name"] for event in world.server.events]
    assert len(set(names)) == 3


def test_events_at_once_have_names_of_their_own(world: World) -> None:
    """Two nodes may speak of one claim in the same moment."""
    with contextlib.ExitStack() as stack:
        others = [world.another() for _ in range(8)]
        for each in others:
            each.start()
            stack.callback(each.close, 10)
        for each, number in itertools.product(others, range(5)):
            each.tell(Notice(Happening.WRONG_SECRET, CLAIM, str(number)))
    names = {event["metadata"]["name"] for event in world.server.events}
    assert len(names) == len(world.server.events) == 40
