# SPDX-License-Identifier: Apache-2.0
"""A command that another program runs for a person elsewhere, over three pipes.

So does `kubectl rbdcrypt` through `kubectl exec`, which passes on no signal and
gives no terminal.  The first line of stdin may be the Secret; that stdin ends,
because the person pressed Ctrl-C or the connection broke, is taken for SIGINT.
stdout has one JSON object in each line: how far the work is, at last the result.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Final

from csi_driver.domain.errors import SecretError
from csi_driver.kube.secret_texts import LONGEST

_STDIN: Final = 0
_CHUNK: Final = 4096

EVERY: Final = 1.0
"""Seconds between two lines, also when nothing moves: proxies cut silent streams."""


def first_line() -> str:
    """Read the first line of stdin; SecretError if it has no end.

    Straight from the descriptor: a thread that waits in Python's own stdin would
    keep the interpreter from ending.
    """
    found = bytearray()
    while not found.endswith(b"\n"):
        if len(found) > LONGEST:
            message = f"the Secret on stdin has more than {LONGEST} bytes"
            raise SecretError(message)
        byte = os.read(_STDIN, 1)  # one by one: nothing behind the line is taken
        if not byte:
            message = "stdin ended before the Secret's line did"
            raise SecretError(message)
        found += byte
    return found.decode("utf-8", "replace")


def heed_stdin() -> None:
    """From now on let the end of stdin be a SIGINT to this process."""
    threading.Thread(target=_await_end, name="stdin", daemon=True).start()


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """Write a line now and then; the function yielded takes (done, total)."""
    last = -EVERY

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY:
            last = now
            show_line({"progress": {"done": done, "total": total}})

    yield update


def show_line(value: object) -> None:
    """Write one JSON object to stdout, at once."""
    print(json.dumps(value), flush=True)


def _await_end() -> None:
    with contextlib.suppress(OSError):
        while os.read(_STDIN, _CHUNK):
            pass
    os.kill(os.getpid(), signal.SIGINT)
