# SPDX-License-Identifier: Apache-2.0
"""The cluster as a whole: brought up, brought up to date, taken down.

What needs the registries is made outside, before anything starts: programs,
images, the Python environment.  The rest runs inside (`inside`).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING
from typing import Final

from labtools import namespace
from labtools import places
from labtools import shell

from clustertools import binaries
from clustertools import images
from clustertools import nodes
from clustertools.kubelet import remove_cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from labtools.places import Lab

_PYTHON: Final = "/usr/bin/python3"


@contextlib.contextmanager
def alone(lab: Lab) -> Iterator[None]:
    """Let one command at a time change the cluster."""
    with places.locked(lab.run.with_name(f"{lab.run.name}.lock")):
        yield


def up(lab: Lab, *, count: int, with_driver: bool) -> None:
    """Start what does not run; install the driver as the clone has it now.

    `count` is how many nodes there are to be, 1 or 2; more than that stay.
    """
    begin = time.monotonic()
    programs = binaries.ensure()
    archives = images.archives(programs, with_driver=with_driver)
    made = time.monotonic()
    second = nodes.lab_of_second(lab)
    was_there = namespace.holder(lab) is not None
    try:
        _start(lab, programs, "start")
        if count > 1 or namespace.holder(second) is not None:
            _start(second, programs, "join", wired_to=lab)
        running = [each for each in (lab, second) if namespace.holder(each)]
        for each in running:
            call_inside(each, "load", *map(str, archives))
        names = [nodes.node_of(each).name for each in running]
        call_inside(lab, "ready", *names)
    except BaseException:
        if not was_there:
            down(lab)
        raise
    if with_driver:
        # What does not start is left for those who want to look at it.
        call_inside(lab, "install")
    now = time.monotonic()
    shell.say(
        f"cluster up in {now - begin:.0f} s: {made - begin:.0f} s for programs and"
        f" images, {now - made:.0f} s to start"
    )


def down(lab: Lab) -> None:
    """Stop everything and remove all of it but the caches."""
    for each in (nodes.lab_of_second(lab), lab):
        namespace.end(each)
        remove_cgroups(each)
        for directory in (each.data, each.run):
            shutil.rmtree(directory, ignore_errors=True)


def call_inside(lab: Lab, *words: str) -> None:
    """Run this program's own sub-command inside; LabError if it fails."""
    status = namespace.call(lab, _PYTHON, str(lab.repo / "hack/cluster"), *words)
    if status:
        raise shell.LabError(f"hack/cluster {words[0]} failed inside ({status})")


def _start(lab: Lab, programs: Path, step: str, wired_to: Lab | None = None) -> None:
    """Make a node's namespaces and start what runs in them, unless it is there."""
    if namespace.holder(lab) is not None:
        namespace.use_environment(lab)
        return
    namespace.use_environment(lab)
    (lab.run / "programs").symlink_to(programs)
    if wired_to is not None:
        call_inside(lab, "address")
        nodes.connect(namespace.ensure(wired_to), namespace.ensure(lab))
    call_inside(lab, step)
