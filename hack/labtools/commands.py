# SPDX-License-Identifier: Apache-2.0
"""The sub-commands of `hack/lab`, outside and inside."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

from labtools import ceph
from labtools import driver
from labtools import namespace
from labtools import places
from labtools import sandbox
from labtools import shell
from labtools.places import Lab

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_PYTHON = "/usr/bin/python3"


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hack/lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start Ceph and the driver")
    up.add_argument("--no-driver", action="store_true", help="Ceph only")
    commands.add_parser("down", help="stop everything, keep Ceph's data")
    commands.add_parser("destroy", help="stop everything, remove all of it")
    commands.add_parser("env", help="print shell assignments")
    run = commands.add_parser("exec", help="run a command inside")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD")
    restart = commands.add_parser("restart", help="replace one part of the driver")
    restart.add_argument("part", choices=driver.PARTS)
    restart.add_argument("--kill", action="store_true", help="SIGKILL, then start")
    return parser.parse_args(words)


def _inside(lab: Lab, *words: str) -> None:
    """Run this program's own sub-command inside."""
    status = namespace.call(lab, _PYTHON, str(lab.repo / "hack/lab"), *words)
    if status:
        raise shell.LabError(f"hack/lab {' '.join(words)} failed inside ({status})")


def _lock(lab: Lab) -> AbstractContextManager[None]:
    """Return the lock that lets one command at a time change the lab."""
    lab.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A command outside holds its own while it waits for its part inside.
    return places.locked(lab.run / f"lock-{'inside' if lab.inside else 'outside'}")


def _up(lab: Lab, no_driver: bool) -> None:
    if lab.inside:
        ceph.up(lab)
        driver.write_sanity_files(lab)
        if not no_driver:
            driver.up(lab)
        return
    was_there = namespace.holder(lab) is not None
    try:
        namespace.use_environment(lab)
        _inside(lab, "up", *(["--no-driver"] if no_driver else []))
    except BaseException:
        if not was_there:
            _down(lab)
        raise


def _down(lab: Lab) -> None:
    if lab.inside:
        driver.down(lab)
        ceph.down(lab)
        return
    if namespace.holder(lab):
        _inside(lab, "down")
    namespace.end(lab)


def _destroy(lab: Lab) -> None:
    _down(lab)
    shutil.rmtree(lab.data, ignore_errors=True)
    shutil.rmtree(lab.run, ignore_errors=True)


def _restart(lab: Lab, part: str, kill: bool) -> None:
    if lab.inside:
        driver.restart(lab, part, kill=kill)
    elif namespace.holder(lab) is None:
        raise shell.LabError("the lab is not up: hack/lab up")
    else:
        _inside(lab, "restart", part, *(["--kill"] if kill else []))


def _exec(lab: Lab, words: list[str]) -> None:
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise shell.LabError("hack/lab exec needs a command")
    extra = {**driver.settings(lab), **driver.environment(lab)}
    if lab.inside:
        env = sandbox.inner_environment(extra)
        os.environ["PATH"] = env["PATH"]
        os.execvpe(words[0], words, env)  # noqa: S606
    namespace.become(lab, words, extra)


def _print_environment(lab: Lab) -> None:
    for name, value in driver.environment(lab).items():
        print(f"export {name}={shlex.quote(value)}")


def _change(lab: Lab, options: argparse.Namespace) -> None:
    if options.command == "up":
        _up(lab, options.no_driver)
    elif options.command == "down":
        _down(lab)
    elif options.command == "destroy":
        _destroy(lab)
    else:
        _restart(lab, options.part, options.kill)


def main() -> int:
    """Run one sub-command; return its exit status."""
    options = _arguments(sys.argv[1:])
    lab = places.current_lab()
    shell.stop_on_signals()
    try:
        if options.command == "env":
            _print_environment(lab)
        elif options.command == "exec":
            _exec(lab, options.words)
        else:
            with _lock(lab):
                _change(lab, options)
    except shell.LabError as error:
        print(f"hack/lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
