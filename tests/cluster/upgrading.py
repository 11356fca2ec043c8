# SPDX-License-Identifier: Apache-2.0
"""A rolling upgrade: which versions run where, and how a datapath is replaced."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from typing import Final

from tests.cluster.kube import Kube
from tests.cluster.parts import NAMESPACE
from tests.cluster.parts import pod_on
from tests.unit.docs.pages import Page

_VERSION: Final = (
    "/opt/rbdcrypt/bin/python -c"
    " 'from csi_driver.datapath.messages import VERSION; print(VERSION)'"
)
_FOUND_WHERE_NOTHING_MAY_BE: Final = 99


@dataclasses.dataclass(frozen=True, slots=True)
class Versions:
    """What the two parts on one node speak to each other."""

    node: int
    datapath: int


def versions_on(kube: Kube, node: str) -> Versions:
    """Read the versions of a node's parts out of their containers."""

    def told(component: str) -> int:
        return int(kube.run(pod_on(kube, component, node), NAMESPACE, _VERSION))

    return Versions(node=told("node"), datapath=told("datapath"))


def replace_datapath(node: str) -> None:
    """Replace the datapath of a node by the steps of docs/upgrade.md, as written."""
    script = _steps(node)
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False
    )
    shown = f"{script}\nexit {done.returncode}: {done.stdout}{done.stderr}"
    assert done.returncode == 0, shown


def _steps(node: str) -> str:
    """Return the page's steps for a node; where it says so, grep finds nothing."""
    blocks = [
        each.text
        for each in Page("docs/upgrade.md").fences("Replacing the datapath of a node")
    ]
    begin = next(at for at, text in enumerate(blocks) if text.startswith("NODE="))
    end = next(at for at, text in enumerate(blocks) if "kubectl uncordon" in text)
    steps = [re.sub("^NODE=.*", f"NODE={node}", text) for text in blocks[begin:end]]
    (looking,) = (at for at, text in enumerate(steps) if "grep -l" in text)
    found = f"then exit {_FOUND_WHERE_NOTHING_MAY_BE}; fi\n"
    steps[looking] = f"if {steps[looking].rstrip()}\n{found}"
    return "".join([*steps, blocks[end]])
