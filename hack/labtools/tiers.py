# SPDX-License-Identifier: Apache-2.0
"""Run the tiers of tests in the lab and say in one line each how it went.

Two lanes, as many as the smallest machine has processors: one makes the Go
tools, brings Ceph up and runs what needs it, the other runs the rest meanwhile
and then boots a guest for the kernel tier.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from clustertools import binaries

from labtools import driver
from labtools import gotools
from labtools import namespace
from labtools import places
from labtools import shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from labtools.places import Lab

TIERS = (
    "static",
    "unit",
    "contract",
    "sanity",
    "ceph",
    "kernel",
    "chart",
    "cluster",
)
"""In their order; the last two need what takes minutes to compile the first time."""
_WITH_CEPH = ("contract", "sanity", "ceph")
_PLAIN = ("chart", "unit")
"""Tiers whose tests see none of the lab's settings."""
_HACK = places.REPO / "hack"


def _scripts() -> list[str]:
    """Return the Python programs of hack/, which ruff would know by a suffix."""
    files = [path for path in sorted(_HACK.iterdir()) if path.is_file()]
    programs = [path for path in files if not path.suffix]
    return [
        f"hack/{path.name}"
        for path in programs
        if path.read_text().startswith("#!/usr/bin/env python3")
    ]


_CHECKS = (
    ("ruff", "check", ".", *_scripts()),
    ("ruff", "format", "--check", ".", *_scripts()),
    ("mypy",),
    (
        *("env", "MYPYPATH=hack", "mypy", "--explicit-package-bases"),
        *("hack/labtools", "hack/benchtools", "hack/clustertools"),
        *("hack/charttools", "hack/imagetools", "hack/docstools", "hack/csi_client.py"),
    ),
    ("lint-imports",),
)


@dataclass(slots=True)
class Result:
    """What one tier came to."""

    passed: int = 0
    failed: int = 0
    note: str = ""
    """Why it failed, if not for a test."""

    @property
    def good(self) -> bool:
        """Tell whether something ran and nothing failed."""
        return self.passed > 0 and self.failed == 0


@dataclass(slots=True)
class Session:
    """One run of this program."""

    lab: Lab
    logs: Path
    arguments: list[str]
    """Given on to pytest."""
    live: bool
    """Show output as it comes: only one tier runs."""
    results: dict[str, Result] = field(default_factory=dict)
    children: set[subprocess.Popen[bytes]] = field(default_factory=set)
    stopping: bool = False
    printing: threading.Lock = field(default_factory=threading.Lock)

    def call(self, command: Sequence[str | Path], log: Path) -> int:
        """Run a command with its output in `log`; return its exit status."""
        if self.stopping:
            return 1
        with log.open("ab") as file:
            child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=None if self.live else file,
                stderr=None if self.live else subprocess.STDOUT,
                start_new_session=True,
            )
        self.children.add(child)
        status = child.wait()
        self.children.discard(child)
        return status

    def stop(self) -> None:
        """End what runs: first so that tests clean up, then as it can be had."""
        self.stopping = True
        for number, seconds in (
            (signal.SIGINT, 20),
            (signal.SIGTERM, 5),
            (signal.SIGKILL, 5),
        ):
            running = list(self.children)
            for child in running:
                child.send_signal(number)
            deadline = time.monotonic() + seconds
            for child in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.1, deadline - time.monotonic()))


def _read_results(path: Path) -> Result:
    """Count pytest's results; a skipped test is one that was not passed."""
    try:
        suite = ET.parse(path).getroot().find("testsuite")  # noqa: S314  (our own)
    except (FileNotFoundError, ET.ParseError):
        suite = None
    if suite is None:
        return Result(failed=1, note="pytest left no results")
    names = ("tests", "failures", "errors", "skipped")
    count = {name: int(suite.get(name, "0")) for name in names}
    failed = count["failures"] + count["errors"] + count["skipped"]
    note = f"{count['skipped']} of them skipped" if count["skipped"] else ""
    if not count["tests"]:
        return Result(note="no tests")
    return Result(passed=count["tests"] - failed, failed=failed, note=note)


def _lab_exec(extra: Mapping[str, str], *words: str, plain: bool) -> list[str | Path]:
    """Return the command that runs `words` inside, `plain` without settings."""
    removed = driver.settings(places.current_lab()) if plain else {}
    unset = [word for name in removed for word in ("-u", name)]
    values = [f"{name}={value}" for name, value in extra.items()]
    return [sys.executable, _HACK / "lab", "exec", "env", *unset, *values, *words]


def _static(session: Session, log: Path) -> Result:
    result = Result()
    for check in _CHECKS:
        with log.open("a") as file:
            file.write(f"$ {' '.join(check)}\n")
        if session.call(_lab_exec({}, *check, plain=True), log):
            result.failed += 1
            result.note += f"{check[0]} " if check[0] != "env" else "mypy-hack "
        else:
            result.passed += 1
    return result


def _chosen(tier: str, arguments: Sequence[str]) -> list[str]:
    """Return pytest's arguments: all of a tier, unless paths in it are given."""
    narrowed = any(each.startswith(f"tests/{tier}/") for each in arguments)
    return [*([] if narrowed else [f"tests/{tier}"]), *arguments]


def _pytest(session: Session, tier: str, log: Path) -> Result:
    if not (places.REPO / "tests" / tier).is_dir():
        return Result(note=f"tests/{tier} does not exist")
    results = session.logs / f"{tier}.xml"
    command = [
        *("python", "-m", "pytest", f"--junit-xml={results}"),
        *_chosen(tier, session.arguments),
    ]
    if tier == "kernel":
        script = _HACK / "labtools/kernel-tier"
        guest = (sys.executable, _HACK / "kernel", script, results)
        status = session.call([*guest, *session.arguments], log)
    elif tier == "cluster":
        status = _in_cluster(session, command, log)
    else:
        extra = gotools.environment()
        if tier == "chart":
            extra["HELM"] = str(binaries.ensure() / "helm")
        plain = tier in _PLAIN
        status = session.call(_lab_exec(extra, *command, plain=plain), log)
    result = _read_results(results)
    if status and not result.failed and not result.note:
        result.failed, result.note = 1, f"pytest ended with {status}"
    return result


def _in_cluster(session: Session, command: Sequence[str], log: Path) -> int:
    """Run a command in a cluster; one that was not there is taken down again."""
    cluster = (sys.executable, _HACK / "cluster")
    lab = places.current_lab(places.CLUSTER)
    was_up = namespace.holder(lab) is not None
    try:
        up = (*cluster, "up", "--nodes", "2", "--suite", "--next")
        return session.call(up, log) or session.call([*cluster, "exec", *command], log)
    finally:
        if not was_up:
            words = [str(word) for word in (*cluster, "down")]
            subprocess.run(words, check=False, start_new_session=True)


def _run_tier(session: Session, tier: str) -> None:
    begin = time.monotonic()
    log = session.logs / f"{tier}.log"
    log.touch()
    try:
        run = _static(session, log) if tier == "static" else _pytest(session, tier, log)
    except shell.LabError as error:
        run = Result(failed=1, note=str(error))
    session.results[tier] = run
    with session.printing:
        if not run.good and not session.live:
            lines = log.read_text(errors="replace").splitlines()
            print(f"--- tier {tier}, end of {log}:", *lines[-80:], sep="\n")
        print(_summary(tier, run, time.monotonic() - begin), flush=True)


def _summary(tier: str, run: Result, seconds: float) -> str:
    note = f" ({run.note.strip()})" if run.note else ""
    counts = f"{run.passed} passed, {run.failed} failed"
    return f"tier {tier}: {counts} in {seconds:.0f} s{note}"


def _bring_up(session: Session, was_up: bool) -> None:
    """Bring Ceph and the driver up, the driver as the clone has it now."""
    lab = (sys.executable, _HACK / "lab")
    log = session.logs / "lab.log"
    if session.call([*lab, "up"], log):
        tail = log.read_text(errors="replace")[-3000:]
        raise shell.LabError(f"hack/lab up failed:\n{tail}")
    if not was_up:
        return
    for part in driver.PARTS:
        # Old code may be running.  A driver that cannot start fails its tests.
        session.call([*lab, "restart", part], log)


def _lanes(
    session: Session, tiers: Sequence[str], was_up: bool
) -> list[Callable[[], None]]:
    def with_ceph() -> None:
        wanted = [tier for tier in tiers if tier in _WITH_CEPH]
        if wanted:
            try:
                _bring_up(session, was_up)
            except shell.LabError as error:
                for tier in wanted:
                    session.results[tier] = Result(failed=1, note="no lab")
                print(error)
                return
        for tier in wanted:
            _run_tier(session, tier)

    def without() -> None:
        for tier in tiers:
            if tier not in _WITH_CEPH:
                _run_tier(session, tier)

    return [with_ceph, without]


def _prefetch(tiers: Sequence[str]) -> None:
    """Compile Go programs while other tiers run; a failure shows where used."""
    with contextlib.suppress(shell.LabError):
        gotools.environment()
        if "chart" in tiers or "cluster" in tiers:
            binaries.ensure()
        if "cluster" in tiers:
            binaries.ensure_e2e()


def _run(session: Session, tiers: Sequence[str]) -> None:
    """Run the tiers; a lab that was not there before is taken down again."""
    was_up = namespace.holder(session.lab) is not None
    try:
        namespace.ensure(session.lab)
        namespace.use_environment(session.lab)
        threading.Thread(target=_prefetch, args=(tiers,), daemon=True).start()
        lanes = _lanes(session, tiers, was_up)
        threads = [threading.Thread(target=lane, daemon=True) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        session.stop()
        if not was_up:
            command = [sys.executable, str(_HACK / "lab"), "down"]
            subprocess.run(command, check=False, start_new_session=True)


def main() -> int:
    """Run the command line; return 0 only if every wanted tier is good."""
    parser = argparse.ArgumentParser(prog="hack/test", description=__doc__)
    parser.add_argument("tiers", nargs="*", metavar="TIER", help=", ".join(TIERS))
    parser.add_argument("--pytest", action="append", default=[], metavar="ARGUMENT")
    options = parser.parse_args()
    unknown = set(options.tiers) - set(TIERS)
    if unknown:
        parser.error(
            f"no such tier: {', '.join(unknown)}; there are {', '.join(TIERS)}"
        )
    tiers = options.tiers or list(TIERS)
    shell.stop_on_signals()
    logs = Path(tempfile.mkdtemp(prefix="rbdcrypt-test-"))
    lab = places.current_lab()
    session = Session(lab, logs, options.pytest, live=len(tiers) == 1)
    begin = time.monotonic()
    try:
        _run(session, tiers)
    except shell.LabError as error:
        print(f"hack/test: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hack/test: interrupted", file=sys.stderr)
        return 130
    runs = [session.results.get(tier, Result(failed=1)) for tier in tiers]
    shell.say(f"all tiers in {time.monotonic() - begin:.0f} s; logs in {logs}")
    passed, failed = sum(run.passed for run in runs), sum(run.failed for run in runs)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if all(run.good for run in runs) else 1
