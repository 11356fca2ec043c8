# SPDX-License-Identifier: Apache-2.0
"""Commands from other threads into a loop."""

from __future__ import annotations

import select
import threading
import time

import pytest

from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.nbd.commands import CommandQueue


def fail() -> None:
    raise SizeError("too much")


def test_without_a_loop_commands_run_at_once() -> None:
    queue = CommandQueue()
    assert queue.call(threading.get_ident) == threading.get_ident()
    with pytest.raises(SizeError):
        queue.call(fail)
    queue.close()


def test_with_a_loop_they_run_there_and_come_back() -> None:
    queue = CommandQueue()
    over = threading.Event()

    def loop() -> None:
        queue.adopt()
        while not over.is_set():
            if select.select([queue.fileno()], [], [], 1)[0]:
                queue.execute()

    thread = threading.Thread(target=loop)
    thread.start()
    while not queue.adopted:
        time.sleep(0.001)
    assert queue.call(threading.get_ident) == thread.ident
    with pytest.raises(SizeError):
        queue.call(fail)
    with pytest.raises(PreconditionError, match="runs already"):
        queue.adopt()
    queue.post(over.set)
    thread.join()
    queue.close()


def test_after_the_end_they_are_refused() -> None:
    queue = CommandQueue()
    over = threading.Event()

    def loop() -> None:
        queue.adopt()
        over.wait()

    adopter = threading.Thread(target=loop)
    adopter.start()
    while not queue.adopted:
        time.sleep(0.001)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            queue.call(fail)
        except PreconditionError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.05)
    queue.close()
    thread.join()
    over.set()
    adopter.join()
    assert len(caught) == 1
    with pytest.raises(PreconditionError, match="ended"):
        queue.call(fail)
    queue.post(fail)
