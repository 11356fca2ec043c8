# SPDX-License-Identifier: Apache-2.0
"""The sub-commands of `hack/cluster`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING
from typing import Final

from labtools import namespace
from labtools import places
from labtools import shell

from clustertools import driver
from clustertools import inside
from clustertools import lifecycle

if TYPE_CHECKING:
    from labtools.places import Lab

_PROGRAMS: Final = ("kubectl", "helm")
"""Programs that `hack/cluster` runs for its user."""


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hack/cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start Ceph, Kubernetes and the driver")
    up.add_argument("--nodes", type=int, choices=(1, 2), default=1)
    up.add_argument("--suite", action="store_true", help="with upstream's tests")
    up.add_argument(
        "--next", action="store_true", help="with an image of the driver's next version"
    )
    up.add_argument(
        "--no-driver", action="store_true", help="do not install the driver"
    )
    commands.add_parser("down", help="stop everything, remove all of it")
    for name in _PROGRAMS:
        commands.add_parser(name, help=f"run {name} with any arguments")
    commands.add_parser("exec", help="run a command on the node")
    restart = commands.add_parser("restart", help="restart a part of the node")
    restart.add_argument("part", choices=inside.PARTS)
    logs = commands.add_parser("logs", help="list all logs, or print one of them")
    logs.add_argument("name", nargs="?", default="")
    return parser.parse_args(words)


def _wanted(options: argparse.Namespace) -> lifecycle.Wanted:
    return lifecycle.Wanted(
        nodes=options.nodes,
        driver=not options.no_driver,
        suite=options.suite,
        successor=options.next,
    )


def _environment(lab: Lab) -> dict[str, str]:
    """Return what commands on the node have to know."""
    return {
        "KUBECONFIG": str(inside.identities(lab).kubeconfig("admin")),
        "CEPH_CONF": str(lab.ceph_conf),
        "RBDCRYPT_CLUSTERS_FILE": str(lab.etc / "config.json"),
        "CHART_VALUES": str(driver.values_file(lab)),
        "STORAGE_SUITE": str(lab.run / "suite"),
    }


def _run(lab: Lab, words: list[str]) -> None:
    """Become a command on the node, with the administrator's kubeconfig."""
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise shell.LabError("hack/cluster exec needs a command")
    path = f"{inside.programs(lab)}:{{}}"
    extra = _environment(lab)
    if lab.inside:
        env = {**os.environ, **extra, "PATH": path.format(os.environ["PATH"])}
        os.execvpe(words[0], words, env)  # noqa: S606
    if namespace.holder(lab) is None:
        raise shell.LabError("the cluster is not up: hack/cluster up")
    namespace.become(lab, words, extra, path=path)


def _logs(lab: Lab, name: str) -> None:
    found = {path.name.partition(".")[0]: path for path in sorted(lab.log.glob("*"))}
    if not name:
        for path in found.values():
            print(path)
    elif name in found:
        with found[name].open() as file:
            shutil.copyfileobj(file, sys.stdout)
    else:
        raise shell.LabError(f"no log {name!r}; there are {', '.join(found)}")


def _dispatch(lab: Lab, options: argparse.Namespace) -> None:
    match options.command:
        case "up":
            with lifecycle.alone(lab):
                lifecycle.up(lab, _wanted(options))
        case "down":
            with lifecycle.alone(lab):
                lifecycle.down(lab)
        case "restart":
            lifecycle.call_inside(lab, "restart", options.part)
        case "logs":
            _logs(lab, options.name)


def main() -> int:
    """Run one sub-command; return its exit status."""
    words = sys.argv[1:]
    lab = places.current_lab(places.CLUSTER)
    shell.stop_on_signals()
    try:
        first, rest = "".join(words[:1]), words[1:]
        if lab.inside and first in inside.STEPS:
            inside.take_step(lab, first, rest)
        elif first in _PROGRAMS:
            # Not by argparse: it would take their options for its own.
            _run(lab, words)
        elif first == "exec":
            _run(lab, rest)
        else:
            _dispatch(lab, _arguments(words))
    except shell.LabError as error:
        print(f"hack/cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
