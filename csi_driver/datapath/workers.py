# SPDX-License-Identifier: Apache-2.0
"""Worker processes as their supervisor sees them: start, ask, notice the end.

Workers are spawned, never forked from a process with librados threads, and each
is told nothing but a descriptor.  One spare is kept with everything imported,
so that opening a volume does not pay for Python's start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import structlog

import csi_driver
from csi_driver.datapath import wire
from csi_driver.datapath.lives import Life
from csi_driver.datapath.lives import WorkerMark
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import Failed
from csi_driver.datapath.messages import Message
from csi_driver.datapath.messages import Prepare
from csi_driver.datapath.messages import Ready
from csi_driver.datapath.messages import TakeSocket
from csi_driver.datapath.staying import stays
from csi_driver.devices.device import ProcessMark
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExportLostError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import UnavailableError

WORKER: Final = ("-m", "csi_driver.datapath.worker")

START_SECONDS: Final = 60.0
"""How long a worker may take to start; two seconds on a busy small machine."""

PREPARE_SECONDS: Final = 30.0
"""How long a spare may take to connect, which is bounded by less."""

_KEPT: Final = ("LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "VIRTUAL_ENV")
_log = structlog.get_logger(__name__)


class Worker:
    """One worker process and the conversation with it.

    One question is asked at a time.  A worker that does not answer `ask` in
    time is killed, since the answer to the next question could be the late one.
    Where a mounted volume would die with it, there is no bound, or nobody waits
    (`ask_if_idle`, `ask_in_turn`).
    """

    def __init__(self, command: Sequence[str], life: Life | None = None) -> None:
        """Start it; `command` is what follows the interpreter."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        package = csi_driver.__file__
        if package is None:
            raise InternalError("the driver's package has no place on disk")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *((life.descriptor,) if life else ())),
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                cwd=Path(package).parents[1],  # the worker runs the same code
                start_new_session=True,  # Ctrl-C ends the supervisor, in order
            )
        self._socket = ours
        self._asking = threading.Lock()
        self._ended = threading.Event()
        self._on_end: Callable[[], None] | None = None
        mark = ProcessMark.of(self._process.pid)
        if mark is None:
            raise InternalError("a worker vanished before it was waited for")
        self.mark = WorkerMark.of(mark, life)
        threading.Thread(target=self._wait, daemon=True, name="reaper").start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.mark.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self._ended.is_set()

    @property
    def stays(self) -> bool:
        """Whether it runs and must not be ended now."""
        return self.alive and stays(self.pid)

    @property
    def end(self) -> str:
        """How it ended, in words; "" while it runs."""
        status = self._process.returncode
        if status is None:
            return ""
        if status < 0:
            return f"killed by {_signal_name(-status)}"
        return f"ended with status {status}"

    def watch(self, on_end: Callable[[], None]) -> None:
        """Have `on_end` called once when the process has ended, even if it has."""
        self._on_end = on_end
        if self._ended.is_set():
            on_end()

    def ask(self, message: Message, seconds: float | None) -> Message:
        """Send a message, return the answer; raise the error that it is.

        ExportLostError if the worker ends instead of answering,
        UnavailableError if it does not answer in time: it is killed then.
        With None the answer is waited for as long as the worker lives.
        """
        with self._conversation(seconds):
            return self._ask(message, None, seconds)

    def give_socket(self, passed: socket.socket, seconds: float) -> None:
        """Let it serve a connected socket, which is closed here."""
        with passed, self._conversation(seconds):
            self._ask(TakeSocket(), passed, seconds)

    def ask_if_idle(self, message: Message, seconds: float) -> Message | None:
        """As `ask_in_turn`, but another question is not waited for."""
        return self._ask_aside(message, 0.0, seconds)

    def ask_in_turn(self, message: Message, seconds: float) -> Message | None:
        """As `ask`, but nobody is killed.

        None if another question is still open after `seconds`, or if the answer
        does not come within as many more.  It is thrown away when it comes; until
        then the worker is not idle.
        """
        return self._ask_aside(message, seconds, seconds)

    def _ask_aside(
        self, message: Message, patience: float, seconds: float
    ) -> Message | None:
        if not self._asking.acquire(timeout=patience):
            return None
        answer: Future[Message] = Future()

        def converse() -> None:
            try:
                answer.set_result(self._ask(message, None, None))
            except DriverError as error:
                answer.set_exception(error)
            finally:
                self._asking.release()

        threading.Thread(target=converse, daemon=True, name="question").start()
        try:
            return answer.result(seconds)
        except TimeoutError:
            return None

    def greet(self) -> None:
        """Wait until it has started, and log what its machine does not permit."""
        with self._conversation(START_SECONDS):
            ready = self._receive(START_SECONDS)
        if not isinstance(ready, Ready):
            raise InternalError(f"a worker began with {type(ready).__name__}")
        for warning in ready.warnings:
            _log.warning("worker", pid=self.pid, warning=warning)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; True if it has ended."""
        return self._ended.wait(seconds)

    def kill(self) -> None:
        """Kill it and wait for its end; PendingError if it has to stay.

        A process that the kernel holds in an I/O of its own cannot be killed:
        UnavailableError after ten seconds.
        """
        if self.stays:
            message = (
                f"worker {self.pid} carries out a flatten that another client asked"
                " for, and was not killed: it has to end first"
            )
            raise PendingError(message)
        if self.alive:
            self._process.kill()
        if not self._ended.wait(_KILL_SECONDS):
            raise UnavailableError(f"worker {self.pid} does not end after SIGKILL")

    def dismiss(self) -> None:
        """Close the conversation, which ends a worker."""
        self._socket.close()

    @contextlib.contextmanager
    def _conversation(self, seconds: float | None) -> Iterator[None]:
        """Be the only one who asks; a worker that is busy too long is killed."""
        if not self._asking.acquire(timeout=-1 if seconds is None else seconds):
            self.kill()
            text = f"worker {self.pid} was busy for {seconds:.0f} s and was killed"
            raise UnavailableError(text)
        try:
            yield
        finally:
            self._asking.release()

    def _ask(
        self, message: Message, passed: socket.socket | None, seconds: float | None
    ) -> Message:
        try:
            wire.send(self._socket, message)
            if passed is not None:
                wire.send_socket(self._socket, passed)
        except wire.ClosedError as error:
            raise self._lost() from error
        answer = self._receive(seconds)
        if isinstance(answer, Failed):
            raise answer.to_error()
        return answer

    def _receive(self, seconds: float | None) -> Message:
        self._socket.settimeout(seconds)
        try:
            return wire.receive(self._socket)
        except wire.ClosedError as error:
            raise self._lost() from error
        except (UnavailableError, InvalidRequestError) as error:
            self.kill()
            within = "" if seconds is None else f" within {seconds:.0f} s"
            text = f"worker {self.pid} did not answer{within} and was killed"
            raise UnavailableError(f"{text} ({error})") from error

    def _lost(self) -> ExportLostError:
        self._ended.wait(1.0)
        return ExportLostError(
            f"worker {self.pid} {self.end or 'hung up'}: its log says more"
        )

    def _wait(self) -> None:
        self._process.wait()
        self._ended.set()
        if self._on_end is not None:
            self._on_end()


_KILL_SECONDS: Final = 10.0


class WorkerPool:
    """Starts workers, one ahead of need."""

    def __init__(
        self,
        command: Sequence[str] = WORKER,
        preparation: Callable[[], Prepare | None] = lambda: None,
        life: Life | None = None,
    ) -> None:
        """Workers run the interpreter with `command`.

        `preparation` says each time what a spare is to connect to.  Workers
        inherit the lock that is `life`.
        """
        self._life = life
        self._command = tuple(command)
        self._preparation = preparation
        self._preparing: Worker | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._spare: Worker | None = None
        self._refilling: threading.Thread | None = None
        self._closed = False

    @property
    def spares(self) -> int:
        """How many workers are ready to be taken."""
        spare = self._spare
        return int(spare is not None and spare.alive)

    def take(self) -> Worker:
        """Return a worker that has started; the caller calls `refill` later."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            if spare.alive:
                return spare
            spare.dismiss()
        return self._start()

    def refill(self, delay: float = 0) -> None:
        """Start the next spare, in a thread of its own, `delay` seconds from now.

        A start takes most of a processor's second, which a call that has just
        taken the last spare should not have to share.
        """
        thread = threading.Thread(
            target=self._refill, args=(delay,), daemon=True, name="spare"
        )
        with self._lock:
            if self._closed or (self._refilling and self._refilling.is_alive()):
                return
            self._refilling = thread
            thread.start()

    def close(self) -> None:
        """Dismiss the spare and keep no other."""
        self._closing.set()
        with self._lock:
            self._closed = True
            spare, self._spare = self._spare, None
            refilling, preparing = self._refilling, self._preparing
        if preparing is not None:
            preparing.kill()  # it may be waiting for a cluster that is gone
        if refilling is not None:
            refilling.join()
        if spare is not None:
            spare.dismiss()
            spare.wait(_KILL_SECONDS)

    def _refill(self, delay: float) -> None:
        self._closing.wait(delay)
        with self._lock:
            if not self._wanted():
                return
        try:
            worker = self._start()
        except (DriverError, OSError) as error:
            _log.warning("no spare worker", error=str(error))
            return
        self._prepare(worker)
        with self._lock:
            if self._wanted():
                self._spare = worker
                return
        worker.dismiss()

    def _prepare(self, worker: Worker) -> None:
        """Let a spare connect; without that it is merely slower later."""
        request = self._preparation()
        if request is None:
            return
        with self._lock:
            if self._closed:
                return
            self._preparing = worker
        try:
            done(worker.ask(request, PREPARE_SECONDS))
        except DriverError as error:
            _log.info("a spare worker did not connect ahead", error=str(error))
        finally:
            request.key.wipe()
            with self._lock:
                self._preparing = None

    def _wanted(self) -> bool:
        return not self._closed and (self._spare is None or not self._spare.alive)

    def _start(self) -> Worker:
        worker = Worker(self._command, self._life)
        try:
            worker.greet()
        except BaseException:
            worker.dismiss()
            raise
        return worker


def done(answer: Message) -> None:
    """Make sure that an answer is Done; InternalError otherwise."""
    if not isinstance(answer, Done):
        raise InternalError(f"a worker answered {type(answer).__name__}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
