# SPDX-License-Identifier: Apache-2.0
"""What every tier shares: the tier's marker and the Hypothesis profiles.

A test's tier is the folder right below tests/, so that neither can be wrong.
HYPOTHESIS_PROFILE chooses a profile; "quick" is meant for edit and run.
"""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

_TESTS = Path(__file__).resolve().parent
_TIERS = ("unit", "contract", "ceph", "sanity", "kernel", "chart", "cluster")

# Deadlines measure the machine, not the code: shared runners pause at will.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.register_profile(
    "thorough", deadline=None, max_examples=2000, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier; a test outside every tier is an error."""
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0]
        if folder not in _TIERS:
            message = (
                f"{item.path}: tests live below one of tests/{{{','.join(_TIERS)}}}"
            )
            raise pytest.UsageError(message)
        item.add_marker(folder)
