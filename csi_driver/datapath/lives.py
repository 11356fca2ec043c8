# SPDX-License-Identifier: Apache-2.0
"""Proof that all processes of an earlier datapath have ended, wherever they ran.

A worker's process id tells that only within its own PID namespace.  So each
datapath holds a lock on a file of its own in the state directory (flock(2)),
through a descriptor that its workers inherit: the kernel takes the lock back when
the last of them has ended, in whichever container that was.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import uuid
from pathlib import Path
from typing import Final

from csi_driver.devices.device import ProcessMark
from csi_driver.devices.process_space import pid_namespace

UNKNOWN: Final = ""
"""Stands for the life of a datapath that holds no lock; it never counts as ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerMark:
    """A worker's process, the PID namespace of its id, and its datapath's life."""

    process: ProcessMark
    namespace: int
    life: str

    @classmethod
    def of(cls, process: ProcessMark, life: Life | None) -> WorkerMark:
        """Mark a child of this very process."""
        return cls(process, pid_namespace(), life.name if life else UNKNOWN)

    @property
    def visible(self) -> bool:
        """Whether its id means a process here."""
        return self.namespace == pid_namespace()


@dataclasses.dataclass(frozen=True, slots=True)
class Life:
    """One datapath's lock; children are to inherit `descriptor`."""

    name: str
    descriptor: int

    def close(self) -> None:
        """Let go, as far as it is this process's."""
        os.close(self.descriptor)


class Lives:
    """The locks of a state directory's datapaths, one after the other."""

    def __init__(self, directory: Path) -> None:
        """Make the directory, for root alone."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory

    def begin(self) -> Life:
        """Take a lock of this datapath's own; forget those that have ended."""
        for path in self._directory.iterdir():
            if self.ended(path.name):
                path.unlink(missing_ok=True)
        name = uuid.uuid4().hex
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        descriptor = os.open(self._directory / name, flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Life(name, descriptor)

    def ended(self, name: str) -> bool:
        """Tell whether every process of that datapath has ended."""
        if name == UNKNOWN:
            return False
        try:
            descriptor = os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True  # forgotten since
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True
