# SPDX-License-Identifier: Apache-2.0
"""Run a script in user-mode-linux: a real kernel with nbd, as a plain process.

The guest's root is a prepared root seen through hostfs, so the clone and /tmp
are the machine's own; only /run, /dev and the kernel are the guest's.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from labtools import namespace
from labtools import places
from labtools import processes
from labtools import rootfs
from labtools import sandbox
from labtools import shell
from labtools.places import Lab
from labtools.processes import Process

_RUN = Path("/run/rbdcrypt-lab")


def _guest_root(scratch: Path) -> sandbox.Root:
    lab = Lab(places.REPO, _RUN / "data", _RUN / "run", "guest")
    return namespace.root_of(lab, str(scratch))


def _write_job(job: Path, words: list[str]) -> None:
    """Write what the guest runs: the script, and the clean-up after it."""
    script = Path(words[0]).resolve()
    shared = (places.REPO, places.cache_dir(), Path("/tmp"))  # noqa: S108
    if not script.is_file():
        raise shell.LabError(f"no such script: {script}")
    if not any(script.is_relative_to(path) for path in shared):
        script = Path(shutil.copy(script, job / script.name))
    starter = [] if os.access(script, os.X_OK) else ["/bin/bash"]
    exports = [
        f"export {name}={shlex.quote(value)}"
        for name, value in sandbox.inner_environment().items()
        if name.isidentifier()
    ]
    command = shlex.join([*starter, str(script), *words[1:]])
    lines = [*exports, f"cd {shlex.quote(str(places.REPO))}", f"exec {command}"]
    (job / "run").write_text("\n".join(lines) + "\n")
    lab = shlex.quote(str(places.REPO / "hack/lab"))
    (job / "end").write_text(f"exec /usr/bin/python3 {lab} down\n")


def _kernel(job: Path, memory: str) -> list[str]:
    return [
        "/usr/bin/env",
        "TMPDIR=/dev/shm",  # the guest's memory: has to be a tmpfs without noexec
        f"LD_PRELOAD={rootfs.XSTATE_LIBRARY}",
        "/usr/bin/linux.uml",
        f"mem={memory}",
        "root=/dev/root",
        "rootfstype=hostfs",
        "rootflags=/",
        "rw",
        f"init={places.REPO}/hack/labtools/guest-init",
        "con=null",
        "con0=null,fd:2",  # the kernel's own messages
        "con1=null,fd:1",  # the script's output
        f"umid=rbdcrypt-{os.getpid()}",
        "uml_dir=/dev/shm",
        "quiet",
        "panic=-1",
        f"job={job}",
    ]


def _boot(spec: sandbox.Root, job: Path, memory: str) -> None:
    """Boot, copy the guest's output, return after it has switched off."""
    with (job / "console").open("wb") as console:
        child = subprocess.Popen(
            spec.command(*_kernel(job, memory)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=console,
            start_new_session=True,
        )
    process = Process.find(child.pid)
    try:
        if child.stdout:
            while data := os.read(child.stdout.fileno(), 65536):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        child.wait()
    finally:
        if process and process.alive():
            # Not by SIGTERM: the guest has nobody who would listen to it.
            members = processes.of_mount_namespace(process)
            for member in members:
                member.signal(signal.SIGKILL)
            child.wait()
            for member in members:
                member.wait(5)


def run_script(words: list[str], memory: str) -> int:
    """Boot a guest for one script; return the script's exit status."""
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-kernel-") as directory:
        job = Path(directory)
        scratch = job / "root"
        scratch.mkdir()
        _write_job(job, words)
        _boot(_guest_root(scratch), job, memory)
        status = job / "status"
        if status.exists():
            return int(status.read_text())
        console = (job / "console").read_text(errors="replace")
        raise shell.LabError(f"the guest ended before the script:\n{console}")


def main() -> int:
    """Run the command line; return the script's exit status."""
    parser = argparse.ArgumentParser(prog="hack/kernel", description=__doc__)
    parser.add_argument("--memory", default="4G", help="of the guest (sparse)")
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    shell.stop_on_signals()
    try:
        return run_script([options.script, *options.arguments], options.memory)
    except shell.LabError as error:
        print(f"hack/kernel: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
