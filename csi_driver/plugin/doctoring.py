# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt doctor`: the driver's own doctor in its pods, and a look outside.

One controller is asked, and every node's two pods, some of them at once.  Where the
driver may not look at an object, the user's own rights may do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from typing import Final

from csi_driver.commands import output
from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Status
from csi_driver.doctor.check import Topic
from csi_driver.domain import json_fields as read
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import NotFoundError
from csi_driver.plugin import installation
from csi_driver.plugin import outside
from csi_driver.plugin import pods
from csi_driver.plugin.driver import Driver
from csi_driver.plugin.driver import pods_of
from csi_driver.plugin.installation import CSI_DRIVERS
from csi_driver.plugin.installation import Installation
from csi_driver.plugin.kubectl import Kubectl
from csi_driver.plugin.pods import CONTROLLER
from csi_driver.plugin.pods import DATAPATH
from csi_driver.plugin.pods import NODE
from csi_driver.plugin.pods import DriverPod
from csi_driver.plugin.printing import Document
from csi_driver.plugin.printing import Part
from csi_driver.plugin.printing import document

_AT_ONCE: Final = 8
_LEFT: Final = "not looked at"
"""How a check in a pod begins that lacks the right to look."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where was looked: from outside (no pod), or in a pod, whose version it is."""

    pod: DriverPod | None
    version: str
    checks: tuple[Check, ...]

    @property
    def title(self) -> str:
        """What people call it."""
        if self.pod is None:
            return "from outside"
        where = f" on {self.pod.node}" if self.pod.node else ""
        return f"{self.pod.component} {self.pod.container}{where}"


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """All places that were looked at."""

    places: tuple[Place, ...]

    @property
    def ok(self) -> bool:
        """Tell whether nothing failed anywhere."""
        return not any(
            check.status is Status.FAILED
            for place in self.places
            for check in place.checks
        )


def diagnose(
    kubectl: Kubectl, namespace: str, release: str, node: str = ""
) -> Diagnosis:
    """Look at everything; with a node's name only at that node's pods."""
    home = installation.find(kubectl, namespace, release)
    every = pods_of(kubectl, "", selector=pods.selector())
    chosen = _controller(every, home)
    ours = [
        each
        for each in every
        if each.installation == chosen.installation
        and each.component in outside.COMPONENTS
    ]
    if node and node not in {each.node for each in ours}:
        raise NotFoundError(
            f"no pod of the driver is on node {node!r}: look at `kubectl get pods"
            f" --namespace {chosen.namespace} --output=wide`"
        )
    if node:
        ours = [each for each in ours if each.node == node]
    expected = (NODE, DATAPATH) if node else outside.COMPONENTS
    checks = [
        *outside.about_pods(ours, expected),
        *outside.about_others(every, chosen),
        *_objects(kubectl, [chosen, *ours]),
    ]
    asked = sorted(
        (each for each in ours if each.component != CONTROLLER and each.running),
        key=lambda each: (each.node, outside.COMPONENTS.index(each.component)),
    )
    if chosen.running and chosen in ours:
        asked.insert(0, chosen)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        inside = list(threads.map(lambda pod: _inside(Driver(kubectl, pod)), asked))
    looked = {(each.name, each.subject) for each in checks}
    seen = Place(None, "", tuple(checks))
    return Diagnosis((seen, *(_without_left(each, looked) for each in inside)))


def as_document(found: Diagnosis) -> Document:
    """Return the diagnosis for programs."""
    return document(
        "DoctorReport",
        ok=found.ok,
        places=[
            {
                "namespace": place.pod.namespace if place.pod else None,
                "pod": place.pod.name if place.pod else None,
                "component": place.pod.component if place.pod else None,
                "node": (place.pod.node or None) if place.pod else None,
                "version": place.version or None,
                "checks": [each.to_json_object() for each in place.checks],
            }
            for place in found.places
        ],
    )


def as_lines(found: Diagnosis, *, everything: bool) -> Iterator[Part]:
    """Return what is not in order, or `everything`, under the places' names."""
    for place in found.places:
        good = sum(each.status is Status.OK for each in place.checks)
        version = f", version {place.version}" if place.version else ""
        yield f"{place.title}{version}: {good} of {len(place.checks)} ok"
        for each in place.checks:
            if everything or each.status is not Status.OK:
                yield output.indented(line(each), 2)


def line(check: Check) -> str:
    """Return one check as one line."""
    subject = f"{check.subject}: " if check.subject else ""
    remedy = f"; {check.remedy}" if check.remedy else ""
    return f"{check.status:<8} {check.name}  {subject}{check.found}{remedy}"


def _controller(every: Sequence[DriverPod], home: Installation) -> DriverPod:
    """Return a controller pod of the installation."""
    controllers = [
        each
        for each in every
        if each.component == CONTROLLER
        and each.namespace == home.namespace
        and home.release in {"", each.release}
    ]
    return pods.choose(controllers, home.where, running=False)


def _objects(kubectl: Kubectl, of: Sequence[DriverPod]) -> list[Check]:
    try:
        drivers, nodes = kubectl.items(CSI_DRIVERS), kubectl.items("csinodes")
    except ForbiddenError as error:
        return [Topic("objects").warning(f"{_LEFT}: {error}")]
    return list(outside.about_objects(drivers, nodes, of))


def _inside(driver: Driver) -> Place:
    """Run the doctor in one pod; that it cannot be run there is a check, too."""
    try:
        words = ("doctor", f"--role={driver.pod.component}")
        version, checks = driver.ask(_report, *words)
    except DriverError as error:
        failed = Topic("doctor", str(driver.pod.container)).failed(str(error))
        return Place(driver.pod, "", (failed,))
    return Place(driver.pod, version, checks)


def _report(answer: Any) -> tuple[str, tuple[Check, ...]]:
    checks = read.objects(answer, "checks")
    version = read.string(answer, "version")
    return version, tuple(Check.from_json_object(each) for each in checks)


def _without_left(place: Place, looked: set[tuple[str, str]]) -> Place:
    """Leave out what the driver could not look at and the user could."""
    kept = tuple(
        each
        for each in place.checks
        if not (each.found.startswith(_LEFT) and (each.name, each.subject) in looked)
    )
    return dataclasses.replace(place, checks=kept)
