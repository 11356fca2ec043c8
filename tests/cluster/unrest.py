# SPDX-License-Identifier: Apache-2.0
"""Controller pods that are killed at random moments while a test runs.

The first one within the first second of a test, the others when the sidecars'
leases of the last one have run out, which takes 15 s: else nobody would ever lead.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import random
import threading
from collections.abc import Iterator

from tests.cluster import parts
from tests.cluster.kube import Kube


class Unrest:
    """Who was killed so far; one at a time kills."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._killed: list[str] = []

    def kill(self, kube: Kube) -> None:
        """Kill one of the controller's pods; there has to be one."""
        with self._turn:
            self._kill(kube)

    def kill_unless_it_happened(self, kube: Kube) -> None:
        """See to it that somebody was killed by now."""
        with self._turn:
            if not self._killed:
                self._kill(kube)

    def require_victims(self, kube: Kube) -> None:
        """Fail unless pods were killed, and see that they are gone."""
        there = {pod["metadata"]["uid"] for pod in parts.pods_of(kube, "controller")}
        assert self._killed, "no controller pod was killed while the test ran"
        assert there.isdisjoint(self._killed), "a killed controller pod is still there"
        print(f"controller pods killed: {len(self._killed)}")  # noqa: T201

    def _kill(self, kube: Kube) -> None:
        pods = parts.pods_of(kube, "controller")
        assert pods, "there is no controller pod to kill"
        lasting = [it for it in pods if not it["metadata"].get("deletionTimestamp")]
        victim = random.choice(lasting or pods)["metadata"]  # noqa: S311
        kube.kill(victim["name"], parts.NAMESPACE)
        self._killed.append(victim["uid"])


@contextlib.contextmanager
def unrest() -> Iterator[Unrest]:
    """Kill now and then until the end of the context; it fails if that failed."""
    made = Unrest()
    ended = threading.Event()

    def kill_now_and_then() -> None:
        pause = random.uniform(0, 1)  # noqa: S311
        with contextlib.closing(Kube()) as own:
            while not ended.wait(pause):
                made.kill(own)
                pause = random.uniform(20, 40)  # noqa: S311

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill_now_and_then)
        try:
            yield made
        finally:
            ended.set()
        killing.result()
