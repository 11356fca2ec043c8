# SPDX-License-Identifier: Apache-2.0
"""Notices become Events at an API server, and never in the way of a call."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Notices
from csi_driver.domain.notices import Pod
from csi_driver.kube.api import ApiLimits
from csi_driver.kube.api import KubernetesApi
from csi_driver.kube.claims import Claims
from csi_driver.kube.correlation import BURST
from csi_driver.kube.correlation import REFILL
from csi_driver.kube.correlation import WINDOW
from csi_driver.kube.event_objects import LONGEST_MESSAGE
from csi_driver.kube.event_objects import Reporter
from csi_driver.kube.events import MOST_WAITING
from csi_driver.kube.events import EventCounts
from csi_driver.kube.events import Events
from tests.unit.kube.event_server import EventServer
from tests.unit.kube.event_server import event_server

VOLUME = VolumeId(Location("lab", 3), "a1b2")
CLAIM = Claim("tenant-a", "data", "8c1a0c3e-0000-4000-8000-000000000001")
POD = Pod("tenant-a", "web-0", "8c1a0c3e-0000-4000-8000-000000000002")
PV = "pvc-8c1a0c3e-0000-4000-8000-000000000001"
WRONG = Notice(Happening.WRONG_SECRET, VOLUME, "volume 'x': the Secret is wrong")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """Events over a real client, and the server they go to."""

    def __init__(self, server: EventServer, directory: Path) -> None:
        self.server = server
        self.clock = Clock()
        limits = ApiLimits(
            connect=0.5, read=0.5, total=1.0, attempts=2, first_wait=0.01
        )
        self.api = KubernetesApi(server.kubeconfig(directory), limits)
        self.names: dict[VolumeId, str] = {VOLUME: PV}
        self.looked: list[VolumeId] = []
        server.bind(PV, str(VOLUME), ("tenant-a", "data", CLAIM.uid))
        self.events = self.another()

    def another(self, most_waiting: int = 64) -> Events:
        return Events(
            self.api,
            Claims("csi.rbdcrypt.io", self.api, self._name_of, self.clock),
            Reporter("csi.rbdcrypt.io", "node-a"),
            most_waiting=most_waiting,
            clock=self.clock,
        )

    def _name_of(self, volume_id: VolumeId) -> str:
        self.looked.append(volume_id)
        if volume_id not in self.names:
            message = f"no volume {volume_id}"
            raise NotFoundError(message)
        return self.names[volume_id]

    def tell(self, *notices: Notice) -> EventCounts:
        """Tell and wait until each of them has met its fate."""
        before = total(self.events)
        for notice in notices:
            self.events.tell(notice)
        eventually(lambda: total(self.events) == before + len(notices))
        return self.events.counts


def total(events: Events) -> int:
    counts = events.counts
    return (
        counts.posted
        + counts.repeated
        + counts.limited
        + counts.nameless
        + counts.failed
        + counts.dropped
    )


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def server() -> Iterator[EventServer]:
    with event_server() as found:
        yield found


@pytest.fixture
def world(
    server: EventServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    found = World(server, tmp_path)
    found.events.start()
    yield found
    assert found.events.close(10)
    found.api.close()


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


# ------------------------------------------------------------------ repetition


def test_what_happens_again_raises_the_count(world: World) -> None:
    assert world.tell(WRONG, WRONG, WRONG) == EventCounts(posted=1, repeated=2)
    (event,) = world.server.events
    assert event["count"] == 3
    assert [verb for verb, _ in world.server.asked] == ["GET", "POST", "PATCH", "PATCH"]


def test_another_message_reason_or_object_is_another_event(world: World) -> None:
    other = Notice(Happening.WRONG_SECRET, VOLUME, "another")
    in_use = Notice(Happening.VOLUME_IN_USE, VOLUME, WRONG.message)
    pod = Notice(Happening.WRONG_SECRET, POD, WRONG.message)
    assert world.tell(WRONG, other, in_use, pod).posted == 4
    assert [event["count"] for event in world.server.events] == [1, 1, 1, 1]


def test_after_a_while_of_silence_it_is_a_new_event(world: World) -> None:
    world.tell(WRONG)
    world.clock.now += WINDOW - 1
    world.tell(WRONG)
    world.clock.now += WINDOW + 1
    world.tell(WRONG)
    assert [event["count"] for event in world.server.events] == [2, 1]


def test_an_event_whose_time_was_over_is_made_again(world: World) -> None:
    world.tell(WRONG, WRONG)
    world.server.events.clear()
    assert world.tell(WRONG) == EventCounts(posted=2, repeated=1)
    (event,) = world.server.events
    assert event["count"] == 3


def test_a_flood_about_one_object_is_bounded_and_counted(world: World) -> None:
    flood = [
        Notice(Happening.WRONG_SECRET, VOLUME, f"number {number}")
        for number in range(50)
    ]
    assert world.tell(*flood) == EventCounts(posted=BURST, limited=50 - BURST)
    assert len(world.server.events) == BURST
    # Nothing else is silenced by it, and neither is it for ever.
    fenced = Notice(Happening.HOLDER_FENCED, VOLUME, "fenced")
    other = Notice(Happening.WRONG_SECRET, POD, "wrong")
    assert world.tell(fenced, other).posted == BURST + 2
    world.clock.now += REFILL
    assert world.tell(WRONG, WRONG).posted == BURST + 3


def test_what_was_limited_is_in_the_next_count(world: World) -> None:
    world.tell(*([WRONG] * (BURST + 5)))
    (event,) = world.server.events
    assert event["count"] == BURST
    world.clock.now += REFILL
    world.tell(WRONG)
    assert event["count"] == BURST + 6


# --------------------------------------------------------------- finding claims


def test_a_claim_is_asked_for_once_in_a_while(world: World) -> None:
    world.tell(WRONG, WRONG)
    assert world.looked == [VOLUME]
    world.clock.now += 299
    world.tell(WRONG)
    assert world.looked == [VOLUME]
    world.clock.now += 2
    world.tell(WRONG)
    assert world.looked == [VOLUME, VOLUME]


@pytest.mark.parametrize(
    "bound",
    [
        {"driver": "another.csi.driver"},
        {"handle": "v1:lab:3::ffff"},
        {"claim": None},
        {"claim": ("Not A Namespace", "data", "")},
        {"claim": ("tenant-a", "../data", "")},
        None,
    ],
    ids=["driver", "handle", "unbound", "namespace", "name", "absent"],
)
def test_a_volume_that_is_not_provably_the_claims_gets_no_event(
    world: World, bound: dict[str, Any] | None
) -> None:
    world.server.volumes.clear()
    if bound is not None:
        given = {"handle": str(VOLUME), "claim": ("tenant-a", "data", ""), **bound}
        world.server.bind(PV, **given)
    assert world.tell(WRONG) == EventCounts(nameless=1)
    assert world.server.events == []
    # It is asked again, but not at once.
    world.server.bind(PV, str(VOLUME), ("tenant-a", "data", ""))
    assert world.tell(WRONG).nameless == 2
    world.clock.now += 61
    assert world.tell(WRONG).posted == 1


@pytest.mark.parametrize("status", [403, 503])
def test_a_claim_that_nobody_could_be_asked_for_is_a_loss(
    world: World, status: int
) -> None:
    """It is counted apart from volumes that have none, so that alerts tell of it."""
    world.server.refusing = status
    assert world.tell(WRONG) == EventCounts(failed=1)
    world.server.refusing = 0
    assert world.tell(WRONG) == EventCounts(failed=2)
    assert world.looked == [VOLUME], "for a minute nobody is asked again"
    world.clock.now += 61
    assert world.tell(WRONG) == EventCounts(failed=2, posted=1)


def test_a_volume_without_a_record_gets_no_event(world: World) -> None:
    world.names.clear()
    assert world.tell(WRONG) == EventCounts(nameless=1)
    assert world.server.asked == []


# ------------------------------------------------------------------ bad weather


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500, 503])
def test_a_server_that_refuses_costs_the_event_alone(
    world: World, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    world.server.refusing = status
    notice = Notice(Happening.WRONG_SECRET, CLAIM, "x")
    assert world.tell(notice) == EventCounts(failed=1)
    world.server.refusing = 0
    assert world.tell(notice) == EventCounts(failed=1, posted=1)
    (event,) = world.server.events
    assert event["count"] == 2, "the first one counts, too"


def test_an_event_whose_answer_was_lost_is_not_made_twice(world: World) -> None:
    world.server.losing = 0.8  # longer than the client waits
    assert world.tell(Notice(Happening.WRONG_SECRET, CLAIM, "x")).posted == 1
    assert [verb for verb, _ in world.server.asked] == ["POST", "POST"]
    assert len(world.server.events) == 1
    assert world.tell(Notice(Happening.WRONG_SECRET, CLAIM, "x")).repeated == 1
    assert world.server.events[0]["count"] == 2


def test_telling_never_waits_and_losses_are_counted(world: World) -> None:
    world.server.delay = 0.4
    events = world.another(most_waiting=4)
    events.start()
    begin = time.monotonic()
    for number in range(100):
        events.tell(Notice(Happening.WRONG_SECRET, CLAIM, f"number {number}"))
    assert time.monotonic() - begin < 0.3
    assert events.counts.dropped >= 90
    world.server.delay = 0.0
    assert events.close(10)
    assert total(events) == 100


def test_without_an_api_server_nothing_is_posted_and_nothing_fails(
    tmp_path: Path, world: World
) -> None:
    with event_server() as gone:
        path = gone.kubeconfig(tmp_path)
    limits = ApiLimits(connect=0.5, read=0.5, total=0.5, attempts=2, first_wait=0.01)
    api = KubernetesApi(path, limits)
    claims = Claims("csi.rbdcrypt.io", api, lambda _: PV)
    events = Events(api, claims, Reporter("d", "n"))
    events.start()
    events.tell(WRONG)
    events.tell(Notice(Happening.WRONG_SECRET, CLAIM, "x"))
    eventually(lambda: total(events) == 2)
    assert events.counts == EventCounts(failed=2)
    assert events.close(10)


def test_losses_are_told_once_in_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    log = "csi_driver.kube.events._log.warning"
    monkeypatch.setattr(log, lambda _, **fields: lines.append(fields))
    world.server.refusing = 403
    world.tell(*(Notice(Happening.WRONG_SECRET, CLAIM, str(n)) for n in range(5)))
    assert len(lines) == 1
    assert "verbs create and patch on the resource events" in lines[0]["reason"]
    world.clock.now += 61
    world.tell(Notice(Happening.WRONG_SECRET, POD, "x"))
    assert len(lines) == 2


def test_an_unforeseen_failure_ends_no_thread(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        message = "unforeseen"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(world.api, "create_event", fails)
        assert world.tell(WRONG).failed == 1
    assert world.tell(WRONG).posted == 1


# ---------------------------------------------------------------------- the end


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_the_thread_posts_what_waits_and_ends(world: World) -> None:
    events = world.another()
    for number in range(5):
        events.tell(Notice(Happening.WRONG_SECRET, CLAIM, str(number)))
    before = threads().count("events")
    events.start()
    assert events.close(10)
    assert threads().count("events") == before
    assert len(world.server.events) == 5
    events.tell(WRONG)
    assert events.counts.dropped == 1, "nobody would post it any more"


def test_an_idle_thread_ends_at_once(world: World) -> None:
    events = world.another()
    events.start()
    begin = time.monotonic()
    assert events.close(10)
    assert time.monotonic() - begin < 1


def test_a_full_queue_does_not_keep_the_thread(world: World) -> None:
    events = world.another(most_waiting=2)
    for number in range(4):
        events.tell(Notice(Happening.WRONG_SECRET, CLAIM, str(number)))
    events.start()
    assert events.close(10)
    assert events.counts == EventCounts(posted=2, dropped=2)


def test_a_slow_server_does_not_hold_up_the_end(world: World) -> None:
    world.server.delay = 0.45
    events = world.another()
    for number in range(20):
        events.tell(Notice(Happening.WRONG_SECRET, CLAIM, str(number)))
    events.start()
    begin = time.monotonic()
    assert not events.close(0.3)
    assert time.monotonic() - begin < 1
    world.server.delay = 0.0
    assert events.close(20), "later it has ended, too"


# --------------------------------------------------------------------- documents


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


# ----------------------------------------------------------------------- secrets


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
