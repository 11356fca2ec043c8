# SPDX-License-Identifier: Apache-2.0
"""What `rbdcrypt-csi doctor` asks an API server about itself and about rights.

No other part of the driver needs these: they read what administrators made, not
what belongs to a volume.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any
from typing import Protocol

from csi_driver.domain.errors import InternalError


@dataclasses.dataclass(frozen=True, slots=True)
class ServerInfo:
    """The API server's version, and its clock where it tells it."""

    version: str
    date: dt.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Right:
    """One verb on one kind of object, in one namespace or in all ("").

    `resource` is the plural name, `name` one object's or "" for any.
    """

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        what = f"{self.resource}.{self.group}" if self.group else self.resource
        which = f"{what} {self.name}" if self.name else what
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {which}{where}"

    def review(self) -> dict[str, Any]:
        """Return the SelfSubjectAccessReview that asks for it."""
        attributes = {
            "verb": self.verb,
            "group": self.group,
            "resource": self.resource,
            "namespace": self.namespace,
            "name": self.name,
        }
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    name: value for name, value in attributes.items() if value
                }
            },
        }


def allowed(review: Mapping[str, Any], title: str) -> bool:
    """Return what a SelfSubjectAccessReview came to; InternalError if nothing."""
    status = review.get("status")
    answer = status.get("allowed") if isinstance(status, dict) else None
    if not isinstance(answer, bool):
        raise InternalError(f"{title}: the API server's answer says neither yes nor no")
    return answer


class Examined(Protocol):
    """An API server under examination.

    Each method raises NotFoundError for what the cluster does not have,
    ForbiddenError without the right, and as CredentialsError with credentials that
    are not accepted, UnavailableError where the server cannot be reached, and
    PreconditionError without usable credentials.
    """

    def server(self) -> ServerInfo:
        """Ask the API server what it is and how late it is."""

    def look_at(self, path: str, title: str) -> Mapping[str, Any]:
        """Return an object or a list of objects as JSON."""

    def may(self, right: Right) -> bool:
        """Ask whether these credentials have a right."""
