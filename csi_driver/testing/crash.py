# SPDX-License-Identifier: Apache-2.0
"""Runs a piece of work in a process of its own and kills it at its Nth step.

    run_until_no_crash("tests/.../work.py:create", new_arguments, check_and_retry)

The work is a function `work(connector, arguments)`.  Connector and arguments
are made anew in the child: a process that has librados threads is not forked.
Arguments travel through the child's standard input, since they may hold
secrets.  The child's side is `python -m csi_driver.testing.crash`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Final

from csi_driver.images.port import Connector
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from csi_driver.testing.faults import When

type Arguments = Mapping[str, Any]
type Work = Callable[[Connector, Arguments], None]

MOST_STEPS: Final = 500
_SECONDS: Final = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Crash:
    """One end of the work: killed around the step `step`, called `name`."""

    step: int
    name: str
    when: When


class WorkFailedError(AssertionError):
    """The work ended by itself, but not well; the message is its stderr."""


def run_until_no_crash(
    work: str,
    arguments: Callable[[], Arguments],
    check: Callable[[Crash, Arguments], None],
    *,
    connector: str = "csi_driver.testing.crash:real_connector",
) -> int:
    """Crash fresh work before and after each of its steps; check every time.

    `work` and `connector` are `module:function` or `path.py:function`.
    `arguments` makes the arguments of one run.  Returns the number of crashes.
    WorkFailedError if the work fails for any other reason than the fault.
    """
    count = 0
    for when in When:
        for step in range(1, MOST_STEPS):
            given = arguments()
            fault = Fault(step, when)
            crash = crash_at(work, given, fault, connector=connector)
            if crash is None:
                break
            check(crash, given)
            count += 1
        else:
            message = f"the work takes more than {MOST_STEPS} steps"
            raise WorkFailedError(message)
    return count


def crash_at(
    work: str,
    arguments: Arguments,
    fault: Fault,
    *,
    connector: str = "csi_driver.testing.crash:real_connector",
) -> Crash | None:
    """Run the work once with a fault; None if it got through before."""
    if fault.error is not None:
        message = "a fault that raises needs no process of its own"
        raise ValueError(message)
    order = {
        "work": work,
        "connector": connector,
        "arguments": dict(arguments),
        "at": fault.at,
        "when": fault.when.value,
    }
    path = os.pathsep.join(entry for entry in sys.path if entry)
    result = subprocess.run(
        [sys.executable, "-m", "csi_driver.testing.crash"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if result.returncode == 0:
        return None
    if result.returncode != -signal.SIGKILL:
        raise WorkFailedError(result.stderr)
    last = result.stdout.splitlines()[-1]
    number, _, name = last.partition(" ")
    return Crash(int(number), name, fault.when)


def real_connector() -> Connector:
    """Return a connector to the clusters of the lab's `config.json`."""
    # Imported here: it needs librados, and the fake does not.
    from csi_driver.domain.clusters import parse_clusters  # noqa: PLC0415
    from csi_driver.images.ceph import CephConnector  # noqa: PLC0415

    conf = Path(os.environ.get("CEPH_CONF", "/etc/ceph/ceph.conf"))
    text = (conf.parent / "config.json").read_text(encoding="utf-8")
    return CephConnector(parse_clusters(text))


def _find(where: str) -> Any:
    """Return the function that `module:function` or `path.py:function` names."""
    module_name, _, function = where.rpartition(":")
    if not module_name.endswith(".py"):
        return getattr(importlib.import_module(module_name), function)
    spec = importlib.util.spec_from_file_location("crash_work", module_name)
    if spec is None or spec.loader is None:
        message = f"{module_name} cannot be loaded"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, function)


def _main() -> None:
    """Carry out one order from standard input; the child's side."""
    order = json.load(sys.stdin)

    def tell(number: int, name: str) -> None:
        # Not buffered: the next thing may be the end of this process.
        os.write(sys.stdout.fileno(), f"{number} {name}\n".encode())

    steps = Steps(Fault(order["at"], When(order["when"])), tell)
    connector = FaultyConnector(_find(order["connector"])(), steps)
    work: Work = _find(order["work"])
    work(connector, order["arguments"])


if __name__ == "__main__":
    _main()
