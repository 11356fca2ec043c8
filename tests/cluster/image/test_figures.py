# SPDX-License-Identifier: Apache-2.0
"""What `hack/image measure` prints for the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster.image.conftest import COMMANDS

_IMAGE: Final = Path(__file__).parents[3] / "hack/image"


def test_size_and_start_are_measured(image: str) -> None:
    words = (sys.executable, str(_IMAGE), "measure")
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    sys.stdout.write(done.stdout)
    size, *starts = done.stdout.splitlines()
    found = re.fullmatch(r"image: (\d+) MB, (\d+) MB compressed", size)
    assert found is not None, size
    assert 0 < int(found[2]) < int(found[1])
    assert len(starts) == len(COMMANDS)
    for command, line in zip(COMMANDS, starts, strict=True):
        pattern = rf"rbdcrypt-csi {command}: serves after \d+\.\d\d s"
        assert re.fullmatch(pattern, line), line


_LEAVES: Final = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from imagetools import podman
place = Path(sys.argv[2])
held = "touch held && exec sleep 100"
podman.run(
    f"cd {place} && setsid flock lock sh -c '{held}' & until test -e {place}/held;"
    " do sleep 0.01; done",
    (place,),
    place / "log",
)
"""
"""Leaves a process that holds a lock when the script has ended."""


def test_nothing_that_podman_leaves_running_outlives_its_root(tmp_path: Path) -> None:
    words = (sys.executable, "-c", _LEAVES, str(_IMAGE.parent), str(tmp_path))
    subprocess.run(words, check=True)
    assert (tmp_path / "held").exists()
    subprocess.run(["flock", "--nonblock", tmp_path / "lock", "true"], check=True)
