# SPDX-License-Identifier: Apache-2.0
"""csi-sanity and the servers it runs against, as the lab names them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        pytest.fail(
            f"{name} is not set: run `hack/test sanity`, or bring the lab up with"
            " `hack/lab up`, take `hack/lab env`, and set CSI_SANITY to the program"
            " that `hack/gotool csi-sanity` makes",
        )
    return value


@dataclasses.dataclass(frozen=True, slots=True)
class Sanity:
    """The program, the sockets and the files it needs."""

    program: Path
    controller: str
    node: str
    secrets: Path
    parameters: Path


@pytest.fixture(scope="session")
def sanity() -> Sanity:
    """Find everything, or fail with how to get it."""
    found = Sanity(
        program=Path(_variable("CSI_SANITY")),
        controller=_variable("CSI_CONTROLLER_ENDPOINT"),
        node=_variable("CSI_NODE_ENDPOINT"),
        secrets=Path(_variable("CSI_SANITY_SECRETS")),
        parameters=Path(_variable("CSI_SANITY_PARAMETERS")),
    )
    for path in (found.program, found.secrets, found.parameters):
        if not path.is_file():
            pytest.fail(f"{path} does not exist: bring the lab up with `hack/lab up`")
    return found
