# SPDX-License-Identifier: Apache-2.0
"""The plugin runs where there is neither Ceph nor gRPC."""

from __future__ import annotations

import subprocess
import sys

from tests.unit.plugin.cluster import ROOT

_HEAVY = ("cryptography", "google", "grpc", "kubernetes", "pydantic", "rados", "rbd")

_SCRIPT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {_HEAVY!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
for module in ('rados', 'grpc'):
    try:
        __import__(module)
    except ModuleNotFoundError:
        continue
    sys.exit('the test hides nothing')
from csi_driver.plugin.main import main
main()
"""


def test_the_plugin_works_without_what_only_the_driver_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, "--help"],
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for command in ("list", "show", "check", "flatten", "doctor", "version"):
        assert command in done.stdout.split()
