# SPDX-License-Identifier: Apache-2.0
"""One API server for all tests here, and a namespace of its own for each."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from charttools import rendering

from tests.chart.server import api_server
from tests.chart.server.api_server import ApiServer

_NUMBERS = itertools.count(1)


class Place:
    """A namespace in which the chart is installed, under a driver's name of its own.

    Objects of the whole cluster have names of their own, too, so that nothing of
    another test is met.
    """

    def __init__(self, api: ApiServer, number: int) -> None:
        self.api = api
        self.namespace = f"space-{number}"
        self.release = f"release-{number}"
        self.driver = f"csi-{number}.example.org"
        self.storage_class = f"class-{number}"
        self.account = f"{self.namespace}:{self.release}-rbdcrypt-csi"

    def helm(self, verb: str, *words: str, case: str = "minimal") -> str:
        """Run `helm install` or `upgrade` with a case's values and these words."""
        values = str(rendering.cases()[case])
        return self.api.helm(
            *(verb, self.release, str(rendering.CHART)),
            *("--namespace", self.namespace, "--values", values),
            *("--set", f"driverName={self.driver}"),
            *("--set", f"storageClasses[0].name={self.storage_class}"),
            *("--set", f"secrets.namespaces={{{self.namespace}}}"),
            *words,
        )

    def run(self, *words: str) -> str:
        """Run another command of helm in the namespace."""
        return self.api.helm(*words, "--namespace", self.namespace)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    place: Path = tmp_path_factory.mktemp("api-server")
    with api_server.running(place) as server:
        yield server


@pytest.fixture
def place(api: ApiServer) -> Iterator[Place]:
    made = Place(api, next(_NUMBERS))
    api.kubectl("create", "namespace", made.namespace)
    yield made
    with contextlib.suppress(rendering.HelmError):
        made.run("uninstall", made.release)
