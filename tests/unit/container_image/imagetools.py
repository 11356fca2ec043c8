# SPDX-License-Identifier: Apache-2.0
"""The modules of hack/imagetools, which is no package of the driver."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any
from typing import Final

REPO: Final = Path(__file__).parents[3]


def module(name: str) -> Any:
    """Import one of them as the programs in hack/ do."""
    if str(REPO / "hack") not in sys.path:
        sys.path.insert(0, str(REPO / "hack"))
    return importlib.import_module(f"imagetools.{name}")
