# SPDX-License-Identifier: Apache-2.0
"""The command line of `hack/bench`, outside and inside its lab.

Outside, it starts a lab of its own beside any other: a lab's monitor gathers
proposals for 0.05 s to make tests quick, and figures from that would flatter.
It is a Ceph of its own, so running tests are disturbed by its load alone, and
disturb it by theirs, which the output shows.  If that lab is up already
(`LAB_NAME=bench LAB_PAXOS_INTERVAL=1 hack/lab up`), it is used and left up.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from labtools import namespace
from labtools import places
from labtools import shell

from benchtools.results import HEADING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from labtools.places import Lab

    from benchtools.results import Result

_SETTINGS = {"LAB_NAME": "bench", "LAB_PAXOS_INTERVAL": "1"}
_WHAT = ("control", "clones", "io", "all")


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hack/bench", description="Measure the driver against its goals."
    )
    parser.add_argument("what", choices=_WHAT)
    parser.add_argument("--output", choices=("table", "json"), default="table")
    return parser.parse_args(words)


def main() -> int:
    """Measure; 0 also if a goal is missed, which the output says."""
    options = _arguments(sys.argv[1:])
    lab = places.current_lab()
    shell.stop_on_signals()
    try:
        if lab.inside:
            _measure(lab, options)
            return 0
        return _in_own_lab(sys.argv[1:])
    except shell.LabError as error:
        print(f"hack/bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


# ----------------------------------------------------------------------- outside


def _in_own_lab(words: Sequence[str]) -> int:
    """Run this program again inside a lab that is as Ceph comes."""
    os.environ.update(_SETTINGS)
    lab = places.current_lab()
    program = places.REPO / "hack/lab"
    # One at a time: a second one would measure the first.
    with places.locked(places.cache_dir() / "locks/bench"):
        was_up = namespace.holder(lab) is not None
        try:
            _call(program, "up")
            bench = str(places.REPO / "hack/bench")
            return _call(program, "exec", "python", bench, *words, check=False)
        finally:
            if not was_up:
                # Its data too: a pool that was used before is another pool.
                _call(program, "destroy", alone=True)


def _call(*words: str | Path, check: bool = True, alone: bool = False) -> int:
    """Run a command; on Ctrl-C, which reaches it too, wait for its end.

    `alone` keeps Ctrl-C from what cleans up.
    """
    command = [sys.executable, *(str(word) for word in words)]
    child = subprocess.Popen(command, start_new_session=alone)
    try:
        status = child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    if check and status:
        raise shell.LabError(f"{' '.join(map(str, words))} failed ({status})")
    return status


# ------------------------------------------------------------------------ inside


def _measure(lab: Lab, options: argparse.Namespace) -> None:
    table = options.output == "table"
    notes = sys.stdout if table else sys.stderr
    print(*_circumstances(lab), sep="\n", file=notes, flush=True)
    if table:
        print(HEADING, flush=True)
    for result in _results(lab, options.what):
        print(result.to_row() if table else result.to_json(), flush=True)
    print(_load("end"), file=notes, flush=True)


def _results(lab: Lab, what: str) -> Iterator[Result]:
    # Only inside are the packages that these need.
    from benchtools import clones  # noqa: PLC0415
    from benchtools import control  # noqa: PLC0415
    from benchtools import throughput  # noqa: PLC0415
    from benchtools.processes import BenchError  # noqa: PLC0415

    try:
        if what in {"control", "all"}:
            yield from control.measure(lab.log)
        if what in {"clones", "all"}:
            yield from clones.measure()
        if what in {"io", "all"}:
            yield from throughput.measure()
    except BenchError as error:
        raise shell.LabError(str(error)) from error


def _circumstances(lab: Lab) -> Iterator[str]:
    """Say what the figures were taken with."""
    lines = lab.ceph_conf.read_text().splitlines()
    pairs = (line.partition("=") for line in lines)
    conf = {name.strip(): value.strip() for name, _, value in pairs}
    version = shell.run("ceph-osd", "--version").split()[2]
    yield (
        f"# Ceph {version}, one {conf['osd objectstore']} OSD, size 1,"
        f" paxos_propose_interval {conf['paxos propose interval']} s,"
        " all on this machine"
    )
    yield (
        f"# {os.cpu_count()} processors, Linux {platform.release()},"
        f" Python {platform.python_version()}; medians, rivals in turns"
    )
    yield "# rbd_cache=false for ours; qemu-nbd --cache=none, which sets the same"
    yield _load("start")


def _load(when: str) -> str:
    one, five, _ = os.getloadavg()
    return f"# load average at the {when}: {one:.1f} (1 min), {five:.1f} (5 min)"
