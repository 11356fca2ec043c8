# SPDX-License-Identifier: Apache-2.0
"""The driver's image, loaded, and what its commands need to start.

Run these with `hack/test cluster`, or in the lab: they need Podman.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.image.podman import Podman
from tests.cluster.image.podman import archive

COMMANDS = ("controller", "node", "datapath")
"""The long-lived ones."""


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with no image yet."""
    if shutil.which("podman") is None:
        pytest.fail("no podman: run this through `hack/test cluster`, or in the lab")
    place = tmp_path_factory.mktemp("podman")
    podman = Podman(place)
    yield podman
    podman.check("system", "reset", "--force")


@pytest.fixture(scope="session")
def image(podman: Podman) -> str:
    """Name of the driver's image."""
    return podman.load(archive("driver"))


@pytest.fixture
def settings(tmp_path: Path) -> tuple[str, ...]:
    """Return flags of `podman run`: a cluster whose monitor does not answer, places."""
    config = tmp_path / "etc"
    config.mkdir()
    key_file = "/etc/rbdcrypt-csi/lab.key"
    pools = [{"name": "rbd"}]
    own = {"userID": "rbdcrypt", "keyFile": key_file, "pools": pools}
    lab = {"clusterID": "lab", "monitors": ["192.0.2.1:6789"], "rbdcrypt": own}
    (config / "config.json").write_text(json.dumps([lab]))
    (config / "lab.key").write_text("AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==\n")
    return (
        f"--volume={config}:/etc/rbdcrypt-csi:ro",
        "--tmpfs=/csi:mode=1777",
        "--tmpfs=/var/lib/rbdcrypt-csi",
        "--env=CSI_ENDPOINT=unix:///csi/csi.sock",
        "--env=RBDCRYPT_NODE_ID=node-a",
    )
