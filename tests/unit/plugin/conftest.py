# SPDX-License-Identifier: Apache-2.0
"""A cluster in files for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.plugin.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """Give a cluster with the driver and nothing else."""
    made = Cluster(tmp_path)
    made.driver_pod()
    made.csi_driver()
    return made
