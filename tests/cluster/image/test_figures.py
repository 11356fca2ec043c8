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
