# SPDX-License-Identifier: Apache-2.0
"""The pages that probes and Prometheus read: /healthz, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from csi_driver.observability.conditions import Condition
from csi_driver.observability.conditions import judge
from csi_driver.observability.http import Answer
from csi_driver.observability.http import Page


def pages(
    *,
    alive: Iterable[Condition],
    ready: Iterable[Condition],
    registry: CollectorRegistry,
) -> Mapping[str, Page]:
    """Return all pages by their paths."""
    return {
        "/healthz": _conditions(tuple(alive)),
        "/readyz": _conditions(tuple(ready)),
        "/metrics": _metrics(registry),
    }


def _conditions(conditions: tuple[Condition, ...]) -> Page:
    """Return a page with a line for each condition; 200 if all hold, else 503."""

    def page(_accept: str) -> Answer:
        verdicts = judge(conditions)
        failed = any(each.failure for each in verdicts)
        status = HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.OK
        return Answer(status, "".join(f"{each.line()}\n" for each in verdicts).encode())

    return page


def _metrics(registry: CollectorRegistry) -> Page:
    def page(accept: str) -> Answer:
        encode, content_type = choose_encoder(accept)
        return Answer(HTTPStatus.OK, encode(registry), content_type)

    return page
