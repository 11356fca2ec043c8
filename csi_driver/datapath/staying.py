# SPDX-License-Identifier: Apache-2.0
"""The mark of a worker that must not be ended now.

While another client's flatten is carried out in a worker, its end would ruin
the image.  A supervisor that was restarted knows nothing of that, so it stands
where any process can see it: in the worker's name, as ps(1) shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

STAYING_NAME: Final = "rbdcrypt-stays"
"""At most 15 bytes (proc_pid_comm(5))."""

_USUAL: Final = Path("/proc/self/comm").read_text(encoding="utf-8").strip()


def show_staying(*, staying: bool) -> None:
    """Name this process so, or as it was before."""
    name = STAYING_NAME if staying else _USUAL
    Path("/proc/self/comm").write_text(name, encoding="utf-8")


def stays(pid: int) -> bool:
    """Tell whether that process is named so."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
    except OSError:
        return False
    return name.strip() == STAYING_NAME
