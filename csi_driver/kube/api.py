# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API over HTTPS: bounded in time, and no value ever logged.

The package `kubernetes` brings configuration, credentials and TLS.  Its typed
calls are not used: they import hundreds of models and hand response bodies to
exceptions, whose text would then hold a Secret.  Reading what an answer says
is left to `objects`.
"""

from __future__ import annotations

import dataclasses
import http
import threading
from pathlib import Path
from typing import Any
from typing import Final

import stamina
import urllib3.exceptions

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.parameters import SecretRef
from csi_driver.kube.contract import CsiVolumeSource
from csi_driver.kube.objects import csi_source
from csi_driver.kube.objects import require_name
from csi_driver.kube.objects import require_namespace
from csi_driver.kube.objects import secret_data

_LARGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes.  etcd keeps at most 1.5 MiB in one object; base64 is counted there."""

_MISSHAPEN: Final = (ValueError, TypeError, LookupError, AttributeError)
"""What the package raises over a kubeconfig of an unexpected shape."""

_SERVER_ERRORS: Final = 500
_SUCCESS: Final = range(200, 300)


class _TransientError(Exception):
    """The same request may succeed a moment later; says why, without a body."""


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
class _Target:
    """One object: its path, and how messages speak of it."""

    path: str
    title: str
    not_found: str
    forbidden: str


class KubernetesApi:
    """Reads Secrets and PersistentVolumes from the API server.

    `kubeconfig` is a path; without it the service account of the pod is used.
    The client is made at the first call, since importing it takes a third of a
    second.  Safe to share between threads.
    """

    def __init__(
        self, kubeconfig: Path | None = None, limits: ApiLimits | None = None
    ) -> None:
        self._kubeconfig = kubeconfig
        self._limits = limits or ApiLimits()
        self._lock = threading.Lock()
        self._made: Any = None

    def read_secret(self, reference: SecretRef) -> dict[str, str]:
        """Return a Secret's data, decoded; errors as `SecretReader` says."""
        require_namespace(reference.namespace)
        require_name(reference.name)
        target = _Target(
            path=f"/api/v1/namespaces/{reference.namespace}/secrets/{reference.name}",
            title=f"Secret {reference}",
            not_found="create it, or correct the name in the class or volume",
            forbidden=(
                "bind the driver's service account to a Role in namespace"
                f" {reference.namespace} that allows the verb get on the resource"
                f" secrets for the name {reference.name}"
            ),
        )
        return secret_data(self._get(target), target.title)

    def read_persistent_volume(self, name: str) -> CsiVolumeSource:
        """Return a PersistentVolume's CSI part; errors as `VolumeReader` says."""
        require_name(name)
        target = _Target(
            path=f"/api/v1/persistentvolumes/{name}",
            title=f"PersistentVolume {name}",
            not_found="it was deleted or never made",
            forbidden=(
                "bind the driver's service account to a ClusterRole that allows"
                " the verb get on the resource persistentvolumes"
            ),
        )
        return csi_source(self._get(target), target.title)

    def close(self) -> None:
        """Close idle connections; the next call makes new ones."""
        with self._lock:
            client, self._made = self._made, None
        if client is not None:
            client.rest_client.close()

    def _get(self, target: _Target) -> bytes:
        limits = self._limits
        client = self._client()
        try:
            for attempt in stamina.retry_context(
                on=_TransientError,
                attempts=limits.attempts,
                timeout=limits.total,
                wait_initial=limits.first_wait,
                wait_jitter=limits.first_wait,
                wait_max=1.0,
            ):
                with attempt:
                    return _get_once(client, target, limits)
        except _TransientError as error:
            raise UnavailableError(
                f"{target.title} cannot be read now: {error}; tried up to"
                f" {limits.attempts} times within {limits.total:g} s"
            ) from None
        raise InternalError(f"reading {target.title} ended without an outcome")

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _make_client(self._kubeconfig)
            return self._made


def _make_client(kubeconfig: Path | None) -> Any:
    # Imported late: the package takes a third of a second.
    from kubernetes import client  # noqa: PLC0415
    from kubernetes import config  # noqa: PLC0415
    from yaml import YAMLError  # noqa: PLC0415

    settings = client.Configuration()
    unusable = ""
    try:
        if kubeconfig is None:
            config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=settings
            )
        else:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(kubeconfig),
                client_configuration=settings,
                persist_config=False,
            )
    except (config.ConfigException, YAMLError, OSError, *_MISSHAPEN) as error:
        # The file holds credentials, so its parser's message is not repeated.
        unusable = type(error).__name__
    if unusable:
        where = "the pod's service account" if kubeconfig is None else str(kubeconfig)
        raise PreconditionError(
            f"no access to the Kubernetes API: {where} cannot be used ({unusable});"
            " run in a pod with a service account, or give the path of a valid"
            " kubeconfig"
        )
    # One place decides about tries; urllib3 would multiply them by four.
    settings.retries = False
    return client.ApiClient(settings)


def _get_once(client: Any, target: _Target, limits: ApiLimits) -> bytes:
    try:
        status, body = _exchange(client, target, limits)
    except urllib3.exceptions.HTTPError as error:
        failure: DriverError | _TransientError = _TransientError(_reason(error))
    else:
        if status in _SUCCESS:
            return body
        failure = _failure(status, target)
    # Raised out here, so that the answer is not carried along as its context.
    raise failure


def _exchange(client: Any, target: _Target, limits: ApiLimits) -> tuple[int, bytes]:
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
    from kubernetes.config import ConfigException  # noqa: PLC0415

    try:
        method, url, headers, _, _ = client.param_serialize(
            "GET",
            target.path,
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
    except (ConfigException, OSError) as error:
        raise PreconditionError(
            f"{target.title} cannot be read: the service account's token cannot be"
            f" read again ({type(error).__name__}); restart the pod"
        ) from None
    try:
        answer = client.call_api(
            method,
            url,
            header_params=headers,
            _request_timeout=(limits.connect, limits.read),
        ).response
    except ApiException:
        # The client raises here for TLS alone; a retry would not mend that.
        raise UnavailableError(
            f"{target.title} cannot be read: TLS with the API server at"
            f" {client.configuration.host} failed; check its certificate and the"
            " configured certificate authority"
        ) from None
    try:
        body = answer.read(_LARGEST_ANSWER + 1)
    finally:
        answer.close()
    if len(body) > _LARGEST_ANSWER:
        raise PreconditionError(f"{target.title} is larger than Kubernetes allows")
    return int(answer.status), bytes(body)


def _failure(status: int, target: _Target) -> DriverError | _TransientError:
    if status == http.HTTPStatus.NOT_FOUND:
        return NotFoundError(f"{target.title} does not exist: {target.not_found}")
    if status == http.HTTPStatus.FORBIDDEN:
        return ForbiddenError(f"{target.title} may not be read: {target.forbidden}")
    if status == http.HTTPStatus.UNAUTHORIZED:
        return ForbiddenError(
            f"{target.title} may not be read: the API server does not accept the"
            " driver's credentials; renew its token or kubeconfig"
        )
    if status == http.HTTPStatus.TOO_MANY_REQUESTS or status >= _SERVER_ERRORS:
        return _TransientError(f"the API server answers {status}")
    return InternalError(
        f"{target.title} cannot be read: the API server answers {status}, which a"
        " read never should"
    )


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    # A type's name, since the text of some of these quotes what was received.
    # NewConnectionError is a ConnectTimeoutError to urllib3 and so comes first.
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "the API server refuses the connection or has no address"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "the API server does not accept a connection in time"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "the API server does not answer in time"
    return f"the connection to the API server failed ({type(error).__name__})"
