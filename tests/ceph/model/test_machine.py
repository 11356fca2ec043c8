# SPDX-License-Identifier: Apache-2.0
"""Random lives of volumes, snapshots and clones on real Ceph.

HYPOTHESIS_PROFILE=thorough makes many more of them.  After a failure
Hypothesis looks for a shorter run that fails, for some minutes, and shows it.
"""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.ceph.model.places import CephPlace
from tests.unit.model.machine import Machine

RUNS = 5
OPERATIONS = 40
LEAST = 300


class CephMachine(Machine):
    """A run on the lab's Ceph."""

    new_place = CephPlace


@pytest.mark.timeout(7200)
def test_volumes_snapshots_and_clones_keep_their_bytes() -> None:
    default = hypothesis.settings.get_profile("default")
    least = LEAST * hypothesis.settings().max_examples // default.max_examples
    settings = hypothesis.settings(
        max_examples=RUNS,
        stateful_step_count=OPERATIONS,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    CephMachine.steps = 0
    while CephMachine.steps < least:  # Hypothesis says where a run ends
        run_state_machine_as_test(CephMachine, settings=settings)
