# SPDX-License-Identifier: Apache-2.0
"""What each process shows over HTTP, put together: its health and its metrics.

Without `http_address` nothing is served or counted, and Prometheus' library is
not even loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

from csi_driver.commands.version import version
from csi_driver.datapath.client import Datapath
from csi_driver.domain.errors import UnavailableError
from csi_driver.observability import http
from csi_driver.observability.conditions import Condition
from csi_driver.rpc import asking
from csi_driver.rpc.recorder import NoRecorder
from csi_driver.rpc.recorder import Recorder
from csi_driver.rpc.registration.standing import Standing
from csi_driver.settings import ControllerSettings
from csi_driver.settings import DatapathSettings
from csi_driver.settings import NodeSettings
from csi_driver.settings import ProcessSettings
from csi_driver.settings import ServiceSettings
from csi_driver.settings import split_address
from csi_driver.settings import variable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from csi_driver.datapath.exports import Exports
    from csi_driver.kube.events import Events
    from csi_driver.provisioning.tally import Tallies

ANSWER_SECONDS: Final = 3.0
"""How long a process may take to answer itself, or the datapath to answer it."""


def controller(
    settings: ControllerSettings,
    events: Events | None,
    collected: Callable[[], Tallies],
) -> contextlib.AbstractContextManager[Recorder]:
    """Show the controller while inside; yields what counts its calls."""
    alive, ready = [_answers(settings)], [_ready(settings)]
    return _calls(settings, events, alive, ready, collected=collected)


def node(
    settings: NodeSettings, standing: Standing, events: Events | None
) -> contextlib.AbstractContextManager[Recorder]:
    """Show the node service while inside; yields what counts its calls."""
    alive = [_answers(settings)]
    ready = [_ready(settings), _datapath(settings.datapath_path)]
    if settings.registration_socket is None:
        return _calls(settings, events, alive, ready)
    alive.append(Condition("registration", standing.require_fresh))
    ready.append(Condition("registration", standing.require_registered))
    return _calls(
        settings, events, alive, ready, registered=lambda: standing.registered
    )


@contextlib.contextmanager
def datapath(settings: DatapathSettings, exports: Exports) -> Iterator[None]:
    """Show the datapath while inside."""
    if not settings.http_address:
        yield
        return
    from csi_driver.observability import metrics
    from csi_driver.observability.exports import ExportMetrics

    registry = metrics.registry_of(version())
    registry.register(ExportMetrics(exports))
    answers = [_datapath(settings.datapath_path)]
    with _serving(settings, registry, answers, answers):
        yield


@contextlib.contextmanager
def _calls(
    settings: ServiceSettings,
    events: Events | None,
    alive: list[Condition],
    ready: list[Condition],
    *,
    registered: Callable[[], bool] | None = None,
    collected: Callable[[], Tallies] | None = None,
) -> Iterator[Recorder]:
    """Show a service that is called, and count its calls and Events."""
    if not settings.http_address:
        yield NoRecorder()
        return
    from csi_driver.observability import metrics
    from csi_driver.observability.collecting import CollectorMetrics

    registry = metrics.registry_of(version())
    _count_events(registry, events)
    if collected is not None:
        registry.register(CollectorMetrics(collected))
    if registered is not None:
        metrics.add_registration(registry, registered)
    recorder = metrics.RpcMetrics(registry)
    with _serving(settings, registry, alive, ready):
        yield recorder


@contextlib.contextmanager
def _serving(
    settings: ProcessSettings,
    registry: CollectorRegistry,
    alive: list[Condition],
    ready: list[Condition],
) -> Iterator[None]:
    """Serve the pages; UnavailableError names the setting if that cannot be."""
    from csi_driver.observability.pages import pages

    shown = pages(alive=alive, ready=ready, registry=registry)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                http.serving(*split_address(settings.http_address), shown)
            )
        except UnavailableError as error:
            raise UnavailableError(
                f"{error}: end what listens there (`ss -ltnp` names it), or choose"
                f" another port with {variable('http_address')} (`httpPort` of the"
                " component in the chart's values)"
            ) from error
        yield


def _count_events(registry: CollectorRegistry, events: Events | None) -> None:
    from csi_driver.observability.events import EventMetrics

    if events is not None:
        registry.register(EventMetrics(lambda: events.counts))


def _answers(settings: ServiceSettings) -> Condition:
    path = settings.socket_path
    return Condition("probe", lambda: asking.require_answer(path, ANSWER_SECONDS))


def _ready(settings: ServiceSettings) -> Condition:
    path = settings.socket_path
    return Condition("probe", lambda: asking.require_ready(path, ANSWER_SECONDS))


def _datapath(path: Path) -> Condition:
    return Condition("datapath", lambda: Datapath(path).ping(ANSWER_SECONDS))
