# SPDX-License-Identifier: Apache-2.0
"""Which tests of a tier are run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any
from typing import Final

_HACK: Final = Path(__file__).parents[3] / "hack"


def tiers() -> Any:
    if str(_HACK) not in sys.path:
        sys.path.insert(0, str(_HACK))
    return importlib.import_module("labtools.tiers")


def test_paths_in_a_tier_are_run_instead_of_all_of_it() -> None:
    chosen = tiers()._chosen  # pure, and nothing else is
    assert chosen("unit", []) == ["tests/unit"]
    assert chosen("unit", ["-k", "word"]) == ["tests/unit", "-k", "word"]
    assert chosen("unit", ["tests/unit/kube"]) == ["tests/unit/kube"]
    assert chosen("unit", ["-x", "tests/unit/kube"]) == ["-x", "tests/unit/kube"]
    assert chosen("ceph", ["tests/unit/kube"]) == ["tests/ceph", "tests/unit/kube"]
