# SPDX-License-Identifier: Apache-2.0
"""Running commands and telling people about it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from typing import NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    from pathlib import Path

_BEGIN = time.monotonic()


class LabError(Exception):
    """Something the person at the keyboard has to know; the message says what."""


def say(text: str) -> None:
    """Print one line of progress with the seconds since the start, on stderr."""
    print(f"[{time.monotonic() - _BEGIN:5.1f} s] {text}", file=sys.stderr, flush=True)


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
) -> str:
    """Run a command, return its output; a failure shows all it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        env=env,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = " ".join(str(word) for word in command)
        raise LabError(f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def run_logged(command: Sequence[str | Path], log: Path) -> None:
    """Run a long command with its output in `log`; show the end if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    with log.open("wb") as file:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        status = child.wait()
    except BaseException:
        _end_group(child)
        raise
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise LabError(f"{words[0]}: exit {status}; end of {log}:\n{tail}")


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End a command and all that it has started in its session."""
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def apt_install(command: str, package: str) -> None:
    """Install a Debian package of this machine if its command is missing."""
    if shutil.which(command):
        return
    say(f"installing {package}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "-y", "--no-install-recommends", package)
    # A third-party source that cannot be reached must not stop Debian's own.
    subprocess.run(
        ["apt-get", "update", "-q"], env=env, capture_output=True, check=False
    )
    run(*install, env=env)


def stop_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into the exception that SIGINT raises.

    SIGINT is heard again where a shell's background job was told to ignore it, for
    what is started here inherits that, and tests send it.
    """

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
