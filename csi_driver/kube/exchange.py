# SPDX-License-Identifier: Apache-2.0
"""One request to the API server at a time: bounded, and no value ever logged.

The package `kubernetes` brings configuration, credentials and TLS.  Its typed
calls are not used: they import hundreds of models and hand response bodies to
exceptions, whose text would then hold a Secret.  What is asked, how often, and
what an answer means is left to `api`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Final

import urllib3.exceptions

from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError

_LARGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes.  etcd keeps at most 1.5 MiB in one object; base64 is counted there."""

_MISSHAPEN: Final = (ValueError, TypeError, LookupError, AttributeError)
"""What the package raises over a kubeconfig of an unexpected shape."""


_REACH: Final = (
    "look whether it runs there, and at what lies between: kube-proxy, NetworkPolicies"
    " (networkPolicy.apiServer of the chart), firewalls"
)
_LOAD: Final = "look at its log, and whether it is overloaded"


class TransientError(Exception):
    """The same request may succeed a moment later; says why, without a body.

    `advice` is what a person can do where it does not.
    """

    def __init__(self, reason: str, advice: str = _LOAD) -> None:
        super().__init__(reason)
        self.advice = advice


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One request; `title` is how messages speak of the object.

    `doing` ends "it cannot be …"; `content_type` says what kind of body it is,
    if there is one.
    """

    method: str
    path: str
    title: str
    doing: str
    body: Mapping[str, Any] | None = None
    content_type: str = "application/json"


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """One answer; `date` is the server's clock when it was sent, if it says so."""

    status: int
    body: bytes
    date: dt.datetime | None = None


class Exchange:
    """The connection to one API server, made at the first request.

    `kubeconfig` is a path; without it the service account of the pod is used.
    Safe to share between threads.
    """

    def __init__(self, kubeconfig: Path | None) -> None:
        self._kubeconfig = kubeconfig
        self._lock = threading.Lock()
        self._made: Any = None

    def send(self, request: Request, *, connect: float, read: float) -> Reply:
        """Send it once and return the answer.

        `connect` and `read` are seconds.  PreconditionError without usable
        credentials, UnavailableError where TLS fails, TransientError for what
        may pass.
        """
        client = self._client()
        try:
            return _exchanged(client, request, (connect, read))
        except urllib3.exceptions.HTTPError as error:
            passing = _passing(error, client.configuration.host)
        # Raised out here, so that what was received is not carried along.
        raise passing

    def close(self) -> None:
        """Close idle connections; the next request makes new ones."""
        with self._lock:
            client, self._made = self._made, None
        if client is not None:
            client.rest_client.close()

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


def _exchanged(client: Any, request: Request, timeouts: tuple[float, float]) -> Reply:
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

    method, url, headers, body = _serialized(client, request)
    try:
        answer = client.call_api(
            method,
            url,
            header_params=headers,
            body=body,
            _request_timeout=timeouts,
        ).response
    except ApiException:
        # The client raises here for TLS alone; a retry would not mend that.
        raise UnavailableError(
            f"{request.title} cannot be {request.doing}: TLS with the API server at"
            f" {client.configuration.host} failed; check its certificate and the"
            " configured certificate authority"
        ) from None
    try:
        content = answer.read(_LARGEST_ANSWER + 1)
    finally:
        answer.close()
    if len(content) > _LARGEST_ANSWER:
        raise PreconditionError(f"{request.title} is larger than Kubernetes allows")
    date = answer.headers.get("Date")
    return Reply(int(answer.status), bytes(content), date and _moment(date))


def _moment(text: str) -> dt.datetime | None:
    try:
        return email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None


def _serialized(client: Any, request: Request) -> tuple[str, str, Any, Any]:
    """Return method, address, headers and body as the package sends them."""
    from kubernetes.config import ConfigException  # noqa: PLC0415

    headers = {"Accept": "application/json"}
    if request.body is not None:
        headers["Content-Type"] = request.content_type
    try:
        method, url, headers, body, _ = client.param_serialize(
            request.method,
            request.path,
            header_params=headers,
            body=request.body,
            auth_settings=["BearerToken"],
        )
    except (ConfigException, OSError) as error:
        raise PreconditionError(
            f"{request.title} cannot be {request.doing}: the service account's token"
            f" cannot be read again ({type(error).__name__}); restart the pod"
        ) from None
    return method, url, headers, body


def _passing(error: urllib3.exceptions.HTTPError, address: str) -> TransientError:
    # Types and the system's own words, since the text of some quotes what was received.
    # NewConnectionError is a ConnectTimeoutError to urllib3 and so comes first.
    server = f"the API server at {address}"
    match error:
        case urllib3.exceptions.NameResolutionError():
            return TransientError(f"{server} has a name without an address", _REACH)
        case urllib3.exceptions.NewConnectionError():
            return TransientError(_unconnected(error.__cause__, server), _REACH)
        case urllib3.exceptions.ConnectTimeoutError():
            return TransientError(f"{server} accepts no connection in time", _REACH)
        case urllib3.exceptions.TimeoutError():
            return TransientError(f"{server} does not answer in time")
    kind = type(error).__name__
    return TransientError(f"the connection to {server} failed ({kind})")


def _unconnected(cause: BaseException | None, server: str) -> str:
    if isinstance(cause, ConnectionRefusedError):
        return f"{server} refuses the connection"
    text = getattr(cause, "strerror", None) or type(cause).__name__
    return f"{server} cannot be reached ({text})"
