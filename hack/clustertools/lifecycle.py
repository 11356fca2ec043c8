# SPDX-License-Identifier: Apache-2.0
"""The cluster as a whole: brought up, brought up to date, taken down.

What needs the registries is made outside, before anything starts: programs,
images, the Python environment.  The rest runs inside (`inside`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from typing import TYPE_CHECKING
from typing import Final

from labtools import blockdevices
from labtools import namespace
from labtools import places
from labtools import processes
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


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be up; what is there beyond that stays."""

    nodes: int = 1
    """1 or 2."""
    driver: bool = True
    """Installed; its images are there either way."""
    suite: bool = False
    """Upstream's storage suite, to be run by tests."""
    successor: bool = False
    """The image of the driver's next version, to be upgraded to by tests."""


def up(lab: Lab, wanted: Wanted) -> None:
    """Start what does not run; install the driver as the clone has it now."""
    begin = time.monotonic()
    programs = binaries.ensure()
    archives = images.archives(programs)
    suite = binaries.ensure_e2e() if wanted.suite else None
    if suite is not None:
        archives += images.suite_archives(suite)
    if wanted.successor:
        archives.append(images.successor_archive())
    made = time.monotonic()
    second = nodes.lab_of_second(lab)
    was_there = namespace.holder(lab) is not None
    try:
        _start(lab, programs, "start")
        if wanted.nodes > 1 or namespace.holder(second) is not None:
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
    if suite is not None:
        _link(lab.run / "suite", suite)
    if wanted.driver:
        # What does not start is left for those who want to look at it.
        call_inside(lab, "install", str(images.driver_archive()))
    now = time.monotonic()
    shell.say(
        f"cluster up in {now - begin:.0f} s: {made - begin:.0f} s for programs and"
        f" images, {now - made:.0f} s to start"
    )


def down(lab: Lab) -> None:
    """Stop everything and remove all of it but the caches."""
    for each in (nodes.lab_of_second(lab), lab):
        holder = namespace.holder(each)
        # Datapaths are in the network of their node, and have mounts of their own.
        seen = processes.of_network_namespace(holder) if holder else []
        loops = blockdevices.loops_of(seen)
        namespace.end(each)
        blockdevices.free_loops(loops)
        remove_cgroups(each)
        for directory in (each.data, each.run):
            shutil.rmtree(directory, ignore_errors=True)


def call_inside(lab: Lab, *words: str) -> None:
    """Run this program's own sub-command inside; LabError if it fails."""
    status = namespace.call(lab, _PYTHON, str(lab.repo / "hack/cluster"), *words)
    if status:
        raise shell.LabError(f"hack/cluster {words[0]} failed inside ({status})")


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _start(lab: Lab, programs: Path, step: str, wired_to: Lab | None = None) -> None:
    """Make a node's namespaces and start what runs in them, unless it is there."""
    if namespace.holder(lab) is not None:
        namespace.use_environment(lab)
        return
    namespace.use_environment(lab)
    _link(lab.run / "programs", programs)
    if wired_to is not None:
        call_inside(lab, "address")
        nodes.connect(namespace.ensure(wired_to), namespace.ensure(lab))
    call_inside(lab, step)
