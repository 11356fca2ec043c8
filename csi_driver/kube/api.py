# SPDX-License-Identifier: Apache-2.0
"""What the driver asks of the API server, object by object.

A request is tried again, in bounded time, where that may help.  How one
request travels is left to `exchange`, reading what an answer says to `objects`.
"""

from __future__ import annotations

import dataclasses
import http
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Final

import stamina

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import CredentialsError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.parameters import SecretRef
from csi_driver.kube.contract import CsiVolumeSource
from csi_driver.kube.examined import Right
from csi_driver.kube.examined import ServerInfo
from csi_driver.kube.examined import allowed
from csi_driver.kube.exchange import Exchange
from csi_driver.kube.exchange import Reply
from csi_driver.kube.exchange import Request
from csi_driver.kube.exchange import TransientError
from csi_driver.kube.objects import csi_source
from csi_driver.kube.objects import parsed
from csi_driver.kube.objects import require_name
from csi_driver.kube.objects import require_namespace
from csi_driver.kube.objects import secret_data

_SERVER_ERRORS: Final = 500
_SUCCESS: Final = range(200, 300)
_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_MERGE: Final = "application/merge-patch+json"
_EVENTS_ALLOWED: Final = (
    "bind the driver's service account to a ClusterRole that allows the verbs create"
    " and patch on the resource events, unless the namespace is being deleted"
)


@dataclasses.dataclass(frozen=True, slots=True)
class ApiLimits:
    """How long and how often to try.  All times are seconds.

    The provisioner gives a whole CreateVolume 10 s by default, so these stay
    well below.  `total` bounds the tries; the last one may end a little later.
    """

    connect: float = 2.0
    read: float = 3.0
    total: float = 5.0
    attempts: int = 4
    first_wait: float = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """A request, and what two refusals of it mean."""

    request: Request
    not_found: str
    forbidden: str


class KubernetesApi:
    """Reads Secrets and PersistentVolumes, and writes Events.

    `kubeconfig` is a path; without it the service account of the pod is used.
    The client is made at the first call, since importing it takes a third of a
    second.  Safe to share between threads.
    """

    def __init__(
        self, kubeconfig: Path | None = None, limits: ApiLimits | None = None
    ) -> None:
        self._exchange = Exchange(kubeconfig)
        self._limits = limits or ApiLimits()

    def read_secret(self, reference: SecretRef) -> dict[str, str]:
        """Return a Secret's data, decoded; errors as `SecretReader` says."""
        require_namespace(reference.namespace)
        require_name(reference.name)
        call = _Call(
            Request(
                method="GET",
                path=(
                    f"/api/v1/namespaces/{reference.namespace}/secrets/{reference.name}"
                ),
                title=f"Secret {reference}",
                doing="read",
            ),
            not_found="create it, or correct the name in the class or volume",
            forbidden=(
                "bind the driver's service account to a Role in namespace"
                f" {reference.namespace} that allows the verb get on the resource"
                f" secrets for the name {reference.name} (the Helm chart does so for"
                " the namespaces in secrets.namespaces and node.secrets.namespaces)"
            ),
        )
        return secret_data(self._answer(call), call.request.title)

    def read_persistent_volume(self, name: str) -> CsiVolumeSource:
        """Return a PersistentVolume's CSI part; errors as `VolumeReader` says."""
        require_name(name)
        call = _Call(
            Request(
                method="GET",
                path=f"/api/v1/persistentvolumes/{name}",
                title=f"PersistentVolume {name}",
                doing="read",
            ),
            not_found="it was deleted or never made",
            forbidden=(
                "bind the driver's service account to a ClusterRole that allows"
                " the verb get on the resource persistentvolumes"
            ),
        )
        return csi_source(self._answer(call), call.request.title)

    def create_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        """Make an Event; errors as `EventWriter` says."""
        require_namespace(namespace)
        request = Request(
            method="POST",
            path=f"/api/v1/namespaces/{namespace}/events",
            title=f"an Event in namespace {namespace}",
            doing="written",
            body=event,
        )
        self._answer(
            _Call(request, "the namespace was deleted", forbidden=_EVENTS_ALLOWED)
        )

    def change_event(
        self, namespace: str, name: str, fields: Mapping[str, Any]
    ) -> None:
        """Change fields of an Event; errors as `EventWriter` says."""
        require_namespace(namespace)
        require_name(name)
        request = Request(
            method="PATCH",
            path=f"/api/v1/namespaces/{namespace}/events/{name}",
            title=f"Event {namespace}/{name}",
            doing="written",
            body=fields,
            content_type=_MERGE,
        )
        self._answer(
            _Call(request, "its time was over", forbidden=_EVENTS_ALLOWED),
        )

    def server(self) -> ServerInfo:
        """Ask the API server what it is and how late it is; errors as `Examined`."""
        path, title = "/version", "the version of the API server"
        reply = self._reply(_examination(Request("GET", path, title, "read")))
        found = parsed(reply.body, title)
        return ServerInfo(str(found.get("gitVersion", "unknown")), reply.date)

    def look_at(self, path: str, title: str) -> Mapping[str, Any]:
        """Return an object or a list of objects as JSON; errors as `Examined`."""
        call = _examination(Request("GET", path, title, "read"))
        return parsed(self._answer(call), title)

    def may(self, right: Right) -> bool:
        """Ask whether these credentials have a right; errors as `Examined`."""
        title = f"the right to {right}"
        request = Request("POST", _REVIEWS, title, "asked for", right.review())
        found = parsed(self._answer(_examination(request)), title)
        return allowed(found, title)

    def close(self) -> None:
        """Close idle connections; the next call makes new ones."""
        self._exchange.close()

    def _answer(self, call: _Call) -> bytes:
        """Send a request until it has an outcome; return the answer's body."""
        return self._reply(call).body

    def _reply(self, call: _Call) -> Reply:
        limits, request = self._limits, call.request
        try:
            for attempt in stamina.retry_context(
                on=TransientError,
                attempts=limits.attempts,
                timeout=limits.total,
                wait_initial=limits.first_wait,
                wait_jitter=limits.first_wait,
                wait_max=1.0,
            ):
                with attempt:
                    reply = self._exchange.send(
                        request, connect=limits.connect, read=limits.read
                    )
                    if reply.status not in _SUCCESS:
                        raise _failure(reply.status, call)
                    return reply
        except TransientError as error:
            raise UnavailableError(
                f"{request.title} cannot be {request.doing} now: {error}; tried up to"
                f" {limits.attempts} times within {limits.total:g} s; {error.advice}"
            ) from None
        raise InternalError(f"{request.title}: a request ended without an outcome")


def _examination(request: Request) -> _Call:
    return _Call(
        request,
        not_found="the cluster does not have it",
        forbidden=(
            "these credentials lack the right; `kubectl rbdcrypt doctor` looks with"
            " those of its user"
        ),
    )


def _failure(status: int, call: _Call) -> DriverError | TransientError:
    """Return the error that a status stands for; the body has no part in it."""
    title, doing = call.request.title, call.request.doing
    match status:
        case http.HTTPStatus.NOT_FOUND:
            return NotFoundError(f"{title} does not exist: {call.not_found}")
        case http.HTTPStatus.FORBIDDEN:
            return ForbiddenError(f"{title} may not be {doing}: {call.forbidden}")
        case http.HTTPStatus.UNAUTHORIZED:
            return CredentialsError(
                f"{title} may not be {doing}: the API server does not accept the"
                " driver's credentials; renew its token or kubeconfig"
            )
        case http.HTTPStatus.CONFLICT:
            return AlreadyExistsError(f"{title} is there already")
    if status == http.HTTPStatus.TOO_MANY_REQUESTS or status >= _SERVER_ERRORS:
        return TransientError(f"the API server answers {status}")
    return InternalError(
        f"{title} cannot be {doing}: the API server answers {status}, which it"
        " never should"
    )
