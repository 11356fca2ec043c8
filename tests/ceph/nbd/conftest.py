# SPDX-License-Identifier: Apache-2.0
"""The lab's Ceph for tests of the datapath."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from csi_driver.testing.lab_images import LabImages


@pytest.fixture(scope="session")
def lab() -> Iterator[LabImages]:
    lab = LabImages()
    yield lab
    lab.close()
