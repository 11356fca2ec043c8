# SPDX-License-Identifier: Apache-2.0
"""The driver's own pods, found by the labels that its chart gives them.

Pure: choosing among pods that were read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Final

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import UnavailableError
from csi_driver.plugin.kubectl import Container
from csi_driver.plugin.objects import at
from csi_driver.plugin.objects import list_at
from csi_driver.plugin.objects import text_at

NAME: Final = "app.kubernetes.io/name"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
CHART: Final = "rbdcrypt-csi"

CONTROLLER: Final = "controller"
NODE: Final = "node"
DATAPATH: Final = "datapath"

_DRIVER_NAME: Final = "RBDCRYPT_DRIVER_NAME"
_DEFAULT_NAME: Final = "csi.rbdcrypt.io"


@dataclasses.dataclass(frozen=True, slots=True)
class DriverPod:
    """One pod of the driver; its main container is named like its component.

    `trouble` says why the container is not ready, "" if it is.
    """

    namespace: str
    name: str
    release: str
    component: str
    node: str
    image: str
    running: bool
    trouble: str
    driver_name: str
    others: tuple[Mapping[str, Any], ...] = ()
    """The other containers of its specification."""

    @property
    def container(self) -> Container:
        """Where commands of the driver run."""
        return Container(self.namespace, self.name, self.component, self.image)

    @property
    def installation(self) -> tuple[str, str]:
        """The Helm release that it belongs to: namespace and name."""
        return self.namespace, self.release

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> DriverPod:
        """Read one."""
        labels = at(found, "metadata", "labels")
        component = text_at(labels, COMPONENT)
        containers = list_at(found, "spec", "containers")
        own = _named(containers, component)
        status = _named(list_at(found, "status", "containerStatuses"), component)
        leaving = at(found, "metadata", "deletionTimestamp") is not None
        return cls(
            namespace=text_at(found, "metadata", "namespace"),
            name=text_at(found, "metadata", "name"),
            release=text_at(labels, INSTANCE),
            component=component,
            node=text_at(found, "spec", "nodeName"),
            image=text_at(own, "image"),
            running=at(status, "state", "running") is not None and not leaving,
            trouble=_trouble(found, status, leaving=leaving),
            driver_name=_driver_name(own),
            others=tuple(e for e in containers if e is not own),
        )


def selector(component: str = "", release: str = "") -> str:
    """Return the label selector of the driver's pods."""
    wanted = {NAME: CHART, COMPONENT: component, INSTANCE: release}
    return ",".join(f"{name}={value}" for name, value in wanted.items() if value)


def choose(pods: Iterable[DriverPod], where: str, *, running: bool = True) -> DriverPod:
    """Return a controller pod for a command, a ready one if there is one.

    NotFoundError if there is none, with `where` it was looked for;
    InvalidRequestError if they belong to several installations;
    UnavailableError if it has to be `running` and none of them does.
    """
    found = sorted(
        pods, key=lambda each: (bool(each.trouble), not each.running, each.name)
    )
    if not found:
        raise NotFoundError(
            f"no controller of rbdcrypt-csi was found {where}: no pod has the labels"
            f" {selector(CONTROLLER)}; install the chart, or name another cluster with"
            " --context and the driver's own namespace with --driver-namespace"
        )
    installations = sorted({each.installation for each in found})
    if len(installations) > 1:
        named = ", ".join(f"{release} in {ns}" for ns, release in installations)
        raise InvalidRequestError(
            f"{len(installations)} installations of rbdcrypt-csi were found: {named};"
            " choose one with --driver-namespace or --release"
        )
    if running and not any(each.running for each in found):
        raise UnavailableError(
            f"no controller pod of rbdcrypt-csi runs: {_troubles(found)}; look at"
            f" `kubectl describe pod --namespace {found[0].namespace} {found[0].name}`"
        )
    return next((each for each in found if each.running), found[0])


def _named(found: Iterable[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next((each for each in found if text_at(each, "name") == name), {})


def _troubles(pods: Sequence[DriverPod]) -> str:
    return ", ".join(f"{each.container} is {each.trouble}" for each in pods)


def _trouble(pod: Mapping[str, Any], status: object, *, leaving: bool) -> str:
    if leaving:
        return "being deleted"
    waiting = at(status, "state", "waiting")
    ended = at(status, "state", "terminated")
    for state in (waiting, ended):
        if state is not None:
            return text_at(state, "reason") or "not started"
    if at(status, "ready") is True:
        return ""
    if at(status, "state", "running") is not None:
        return "not ready"
    return text_at(pod, "status", "phase") or "unknown"


def _driver_name(container: object) -> str:
    for each in list_at(container, "env"):
        if text_at(each, "name") == _DRIVER_NAME:
            return text_at(each, "value") or _DEFAULT_NAME
    return _DEFAULT_NAME
