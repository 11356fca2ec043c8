# SPDX-License-Identifier: Apache-2.0
"""Events that cannot be posted: what is lost, counted and told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.kube.api import ApiLimits
from csi_driver.kube.api import KubernetesApi
from csi_driver.kube.claims import Claims
from csi_driver.kube.event_objects import Reporter
from csi_driver.kube.events import EventCounts
from csi_driver.kube.events import Events
from tests.unit.events.world import CLAIM
from tests.unit.events.world import POD
from tests.unit.events.world import PV
from tests.unit.events.world import WRONG
from tests.unit.events.world import World
from tests.unit.events.world import eventually
from tests.unit.events.world import total
from tests.unit.kube.event_server import event_server


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
