# SPDX-License-Identifier: Apache-2.0
"""A cluster in files whose driver pod runs the real commands on the lab's Ceph."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ceph.administration.making import Maker
from tests.ceph.provisioning.real import CephWorld
from tests.unit.plugin.cluster import ROOT
from tests.unit.plugin.cluster import Cluster


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[Maker]:
    world = CephWorld()
    world.begin()
    made = Maker(world, tmp_path)
    yield made
    made.close()
    world.end()


@pytest.fixture
def cluster(tmp_path: Path, maker: Maker) -> Cluster:
    made = Cluster(tmp_path)
    made.driver_pod()
    made.csi_driver()
    made.pods["*"] = {
        "run": [sys.executable, "-m", "csi_driver"],
        "environment": {
            # Where no datapath of the lab is.
            "RBDCRYPT_RUN_DIR": str(tmp_path / "run"),
            "RBDCRYPT_CLUSTERS_FILE": str(maker.config),
            "PYTHONPATH": str(ROOT),
            # python-rbd 18.2.7 makes timestamps with what Python is to lose.
            "PYTHONWARNINGS": "ignore",
        },
    }
    return made
