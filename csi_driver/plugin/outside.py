# SPDX-License-Identifier: Apache-2.0
"""What `kubectl rbdcrypt doctor` sees from outside of the driver's pods.

Pods that are not ready, images that do not fit together, controllers that do not
elect a leader, and objects that the driver itself may not read.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Final

from csi_driver.doctor import judging
from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Topic
from csi_driver.plugin.objects import list_at
from csi_driver.plugin.objects import name_of
from csi_driver.plugin.objects import text_at
from csi_driver.plugin.pods import CONTROLLER
from csi_driver.plugin.pods import DATAPATH
from csi_driver.plugin.pods import NODE
from csi_driver.plugin.pods import DriverPod

type Json = Mapping[str, Any]

COMPONENTS: Final = (CONTROLLER, NODE, DATAPATH)
_ELECTION: Final = "--leader-election"
_SIDECAR: Final = "csi-"


def about_pods(
    pods: Sequence[DriverPod], expected: Iterable[str] = COMPONENTS
) -> Iterator[Check]:
    """Judge the pods of one installation, of which there has to be each component."""
    for component in expected:
        found = [each for each in pods if each.component == component]
        yield from _readiness(component, found)
    yield from _images(pods)
    yield from _election([each for each in pods if each.component == CONTROLLER])


def about_others(pods: Iterable[DriverPod], chosen: DriverPod) -> Iterator[Check]:
    """Look for another installation under the same driver name."""
    others = sorted(
        {
            each.installation
            for each in pods
            if each.driver_name == chosen.driver_name
            and each.component in COMPONENTS
            and each.installation != chosen.installation
        }
    )
    for namespace, release in others:
        yield Topic("driver-name", chosen.driver_name).failed(
            f"release {release} in namespace {namespace} has the same driver name",
            "remove one of the two, but not what they share by name (the CSIDriver"
            " object and classes), or give it another driverName",
        )


def about_objects(
    drivers: Iterable[Json], csi_nodes: Iterable[Json], pods: Sequence[DriverPod]
) -> Iterator[Check]:
    """Judge CSIDriver and CSINode objects for the pods of one installation."""
    first = pods[0]
    named = {name_of(each).name: each for each in drivers}
    found = named.get(first.driver_name)
    yield from judging.csi_driver(found, first.driver_name, first.namespace)
    by_node = {name_of(each).name: each for each in csi_nodes}
    for each in pods:
        if each.component == NODE and each.node:
            entry = by_node.get(each.node)
            yield judging.csi_node(entry, first.driver_name, each.node)


def _readiness(component: str, pods: Sequence[DriverPod]) -> Iterator[Check]:
    topic = Topic("pods", component)
    if not pods:
        yield topic.failed(
            "there is none",
            "look at the chart's Deployment or DaemonSet: `kubectl get"
            " deployments,daemonsets --all-namespaces"
            " --selector=app.kubernetes.io/name=rbdcrypt-csi`",
        )
        return
    troubled = [each for each in pods if each.trouble]
    for each in troubled:
        yield Topic("pods", str(each.container)).failed(
            f"is {each.trouble}" + (f" on node {each.node}" if each.node else ""),
            f"look at `kubectl describe pod --namespace {each.namespace} {each.name}`"
            f" and `kubectl logs --namespace {each.namespace} {each.name}"
            f" {component}`",
        )
    if not troubled:
        yield topic.ok(f"{len(pods)} ready")


def _images(pods: Sequence[DriverPod]) -> Iterator[Check]:
    """Compare what the pods of a node run, and what all of them run."""
    nodes = {each.node: each for each in pods if each.component == NODE}
    differing = False
    for each in pods:
        beside = nodes.get(each.node)
        if each.component != DATAPATH or beside is None or each.image == beside.image:
            continue
        differing = True
        yield Topic("images", each.node).warning(
            f"the datapath runs {each.image}, the node service {beside.image}",
            "drain the node and delete the pod"
            f" {each.container}: a datapath is replaced only so, since it holds the"
            " devices",
        )
    others = sorted({each.image for each in pods if each.component != DATAPATH})
    if len(others) > 1:
        yield Topic("images").warning(
            f"controllers and nodes run {' and '.join(others)}",
            "wait for the upgrade to end (`kubectl rollout status`), or look why not",
        )
    elif not differing:
        yield Topic("images").ok(f"all pods run {others[0] if others else 'none'}")


def _election(controllers: Sequence[DriverPod]) -> Iterator[Check]:
    topic = Topic("leader-election")
    if len(controllers) < 2:  # noqa: PLR2004  # there is nobody to elect
        return
    without = sorted(
        {
            text_at(container, "name")
            for pod in controllers
            for container in pod.others
            if text_at(container, "name").startswith(_SIDECAR)
            and not _elects(container)
        }
    )
    if without:
        yield topic.failed(
            f"{len(controllers)} controllers run and {', '.join(without)} elect no"
            " leader: both make and delete the same volumes",
            f"give the sidecars {_ELECTION}, as the chart does, or run one replica",
        )
    else:
        yield topic.ok(f"{len(controllers)} controllers, whose sidecars elect a leader")


def _elects(container: Json) -> bool:
    words = [*list_at(container, "command"), *list_at(container, "args")]
    return any(each in {_ELECTION, f"{_ELECTION}=true"} for each in words)
