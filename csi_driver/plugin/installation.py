# SPDX-License-Identifier: Apache-2.0
"""Where the driver is installed, by what no tenant of the cluster can write.

Anybody who may make pods can give one the labels of a controller, and would be handed
another tenant's passphrase.  The CSIDriver object belongs to the whole cluster, and
Helm notes on it to which release it belongs: only pods of that release's namespace
count.  Where nothing is noted, the user has to name the namespace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.plugin.kubectl import Json
from csi_driver.plugin.kubectl import Kubectl
from csi_driver.plugin.objects import at
from csi_driver.plugin.objects import name_of
from csi_driver.plugin.objects import text_at
from csi_driver.plugin.pods import selector

CSI_DRIVERS: Final = "csidrivers"
RELEASE_NAMESPACE: Final = "meta.helm.sh/release-namespace"
RELEASE_NAME: Final = "meta.helm.sh/release-name"
_HOW: Final = "name the driver's own namespace with --driver-namespace"
_WHICH: Final = "choose one with --driver-namespace or --release"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Installation:
    """A namespace and a Helm release in it; "" where any release is meant."""

    namespace: str
    release: str

    def __str__(self) -> str:
        return f"{self.release} in {self.namespace}"

    @property
    def where(self) -> str:
        """Where its pods are, for messages."""
        found = f"in namespace {self.namespace}"
        return f"{found} as release {self.release}" if self.release else found


def find(kubectl: Kubectl, namespace: str, release: str) -> Installation:
    """Return the installation that is meant; "" for what the user did not name.

    ForbiddenError if CSIDriver objects may not be read and no namespace is named.
    See `choose` for the others.
    """
    try:
        drivers = kubectl.items(CSI_DRIVERS, selector=selector())
    except ForbiddenError as error:
        if namespace:
            return Installation(namespace, release)
        if " is forbidden: " not in str(error):  # but nobody is logged in
            raise
        raise ForbiddenError(f"{error}, or {_HOW}") from error
    return choose(drivers, namespace, release)


def choose(drivers: Sequence[Json], namespace: str, release: str) -> Installation:
    """Choose among the CSIDriver objects that this chart made.

    NotFoundError if there is none, or none of what the user named;
    PreconditionError if none of them says to which release it belongs;
    InvalidRequestError if several are meant.
    """
    noted = {name_of(each).name: _noted(each) for each in drivers}
    known = sorted({each for each in noted.values() if each})
    meant = [
        each
        for each in known
        if namespace in {"", each.namespace} and release in {"", each.release}
    ]
    if len(meant) > 1:
        raise InvalidRequestError(
            f"{len(meant)} installations of rbdcrypt-csi were found:"
            f" {', '.join(map(str, meant))}; {_WHICH}"
        )
    if meant:
        return meant[0]
    silent = [name for name, each in noted.items() if each is None]
    # A namespace that the user named is the user's word, unless Helm's is another.
    here = any(each.namespace == namespace for each in known)
    if namespace and not here and (silent or not known):
        return Installation(namespace, release)
    if known:
        raise NotFoundError(
            f"no rbdcrypt-csi is installed{_named(namespace, release)}: its CSIDriver"
            f" objects belong to {', '.join(map(str, known))}; {_WHICH}"
        )
    if silent:
        raise PreconditionError(
            f"CSIDriver {', '.join(sorted(silent))} has no annotations"
            f" {RELEASE_NAMESPACE} and {RELEASE_NAME}, without which any pod could"
            f" pose as its controller: {_HOW}"
        )
    raise NotFoundError(
        "no rbdcrypt-csi is installed in this cluster: no CSIDriver object has the"
        f" label {selector()}; install the chart, name another cluster with --context,"
        f" or {_HOW}"
    )


def _noted(driver: Json) -> Installation | None:
    """Return what Helm noted on an object, None without."""
    notes = at(driver, "metadata", "annotations")
    namespace = text_at(notes, RELEASE_NAMESPACE)
    release = text_at(notes, RELEASE_NAME)
    return Installation(namespace, release) if namespace and release else None


def _named(namespace: str, release: str) -> str:
    where = f" in namespace {namespace}" if namespace else ""
    return f"{where} as release {release}" if release else where
