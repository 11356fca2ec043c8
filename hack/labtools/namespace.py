# SPDX-License-Identifier: Apache-2.0
"""The lab's mount namespace: made, kept by one sleeping process, entered, ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from labtools import environment
from labtools import places
from labtools import processes
from labtools import rootfs
from labtools import sandbox
from labtools import shell
from labtools.processes import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labtools.places import Lab


def root_of(lab: Lab, scratch: str) -> sandbox.Root:
    """Return what the inside of this lab consists of; builds what is missing."""
    lower = rootfs.ensure()
    venv = environment.ensure(lower)
    same = ("/tmp", lab.repo, places.cache_dir())  # noqa: S108
    return sandbox.Root(
        lower=str(lower),
        scratch=scratch,
        binds=[
            *sandbox.machine_binds(),
            *((str(path), str(path)) for path in same),
        ],
        links=[(str(places.VENV), str(venv)), ("/etc/ceph", str(lab.etc))],
        marker={
            "kind": lab.kind,
            "repo": str(lab.repo),
            "data": str(lab.data),
            "run": str(lab.run),
            "isolated": "yes" if lab.isolated else "no",
        },
        own_network=lab.isolated,
        own_processes=lab.isolated,
    )


def holder(lab: Lab) -> Process | None:
    """Return the process that keeps the namespace, if there is one."""
    return Process.load(lab.run / "pids/holder")


def ensure(lab: Lab) -> Process:
    """Return the holder of the namespace, made if it does not run."""
    found = holder(lab)
    if found:
        return found
    for directory in (lab.data, lab.etc, lab.log, lab.run):
        directory.mkdir(parents=True, exist_ok=True)
    lab.run.chmod(0o700)
    scratch = lab.run / "root"
    scratch.mkdir(exist_ok=True)
    spec = root_of(replace(lab, kind="lab"), str(scratch))
    log = lab.log / "namespace.out"
    ready = lab.run / "ready"
    ready.unlink(missing_ok=True)
    # It is the first process where the lab has ids of its own, and reaps there.
    words = ("/bin/sh", "-c", f"touch {ready}; exec catatonit -P")
    pid_file = lab.run / "pids/holder"
    process = processes.start(spec.command(*words), pid_file, log)
    while not ready.exists():
        if not process.alive():
            raise shell.LabError(f"the lab's root failed:\n{log.read_text()[-2000:]}")
        time.sleep(0.01)
    if lab.isolated:
        process = processes.only_child(process)
        process.save(pid_file)
    return process


def end(lab: Lab) -> None:
    """End every process in the namespace; its mounts go with the last one."""
    found = holder(lab)
    if found:
        members = processes.of_mount_namespace(found)
        if not lab.isolated:
            others = [member for member in members if member != found]
            processes.stop(others, seconds=5)
        # With ids of its own all others end with the first.
        processes.stop([found], seconds=1)
    (lab.run / "pids/holder").unlink(missing_ok=True)


def use_environment(lab: Lab) -> None:
    """Let the inside see the virtual environment that fits the clone now."""
    venv = environment.ensure(rootfs.ensure())
    if call(lab, "/bin/ln", "-sfn", str(venv), str(places.VENV)):
        raise shell.LabError("the virtual environment cannot be linked")


def enter_command(
    lab: Lab, process: Process, words: Sequence[str], cwd: str
) -> list[str]:
    """Return the command line that runs `words` in the lab that `process` holds."""
    target = ("nsenter", "--target", str(process.pid), "--mount", "--root")
    own = ("--net", "--pid") if lab.isolated else ()
    return [*target, *own, "--", "/usr/bin/env", "-C", cwd, *words]


def call(lab: Lab, *words: str) -> int:
    """Run a command inside and return its exit status."""
    process = ensure(lab)
    command = enter_command(lab, process, words, "/")
    env = sandbox.inner_environment()
    return subprocess.run(command, env=env, check=False).returncode


def become(
    lab: Lab, words: Sequence[str], extra: dict[str, str], path: str = "{}"
) -> None:
    """Become a command that runs inside: same terminal, signals, exit status.

    `path` says where the usual PATH stands in a longer one.
    """
    process = holder(lab)
    if process is None:
        raise shell.LabError("the lab is not up: hack/lab up")
    cwd = os.getcwd()  # noqa: PTH109
    shared = (str(lab.repo), str(places.cache_dir()), "/tmp")  # noqa: S108
    if not any(cwd == path or cwd.startswith(f"{path}/") for path in shared):
        cwd = str(lab.repo)
    command = enter_command(lab, process, words, cwd)
    env = sandbox.inner_environment(extra)
    # Found by this process's PATH still, and its own command by the new one.
    program = shutil.which(command[0]) or command[0]
    env["PATH"] = path.format(env["PATH"])
    os.execve(program, command, env)  # noqa: S606
