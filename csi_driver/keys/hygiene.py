# SPDX-License-Identifier: Apache-2.0
"""Keep the keys of this process out of core files, debuggers and swap.

Called once at the start of every process that holds keys.  What a machine does
not permit becomes a warning for the caller to log, never a reason to fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import mmap
import os
import resource
from typing import Final

# <linux/prctl.h>, the same on all architectures.
_PR_SET_DUMPABLE: Final = 4
_PR_SET_IO_FLUSHER: Final = 57

# <asm-generic/mman.h>; Alpha, PowerPC and SPARC differ and have no Ceph builds
# that this driver supports.
_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4

_MAP_NORESERVE: Final = 0x4000
_KIB: Final = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Hygiene:
    """What was achieved, and a readable sentence for each thing that was not."""

    no_core_files: bool
    not_dumpable: bool
    memory_locked: bool
    io_flusher: bool
    warnings: tuple[str, ...]


def harden(*, io_flusher: bool = False) -> Hygiene:
    """Forbid core files and debuggers, and lock all memory against swapping.

    `io_flusher` is for datapath workers only: the kernel then does not wait
    for I/O of the very device that the worker serves when the worker needs
    memory (prctl(2), PR_SET_IO_FLUSHER; needs CAP_SYS_RESOURCE).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    core = _forbid_core_files()
    dump = _prctl(libc, _PR_SET_DUMPABLE, 0, "the process stays open to debuggers")
    lock = _lock_memory(libc)
    flusher = None
    if io_flusher:
        flusher = _prctl(
            libc,
            _PR_SET_IO_FLUSHER,
            1,
            "under memory pressure the worker may wait for its own device; add"
            " CAP_SYS_RESOURCE",
        )
    failures = (core, dump, lock, flusher)
    return Hygiene(
        no_core_files=core is None,
        not_dumpable=dump is None,
        memory_locked=lock is None,
        io_flusher=io_flusher and flusher is None,
        warnings=tuple(text for text in failures if text is not None),
    )


def _forbid_core_files() -> str | None:
    # A core_pattern that is a pipe ignores this limit; for that one the process
    # is made undumpable as well (core(5)).
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except OSError as error:
        return f"core files stay possible: setrlimit: {os.strerror(error.errno or 0)}"
    return None


def _prctl(libc: ctypes.CDLL, option: int, value: int, consequence: str) -> str | None:
    # prctl is variadic and reads unsigned longs.
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if libc.prctl(option, *arguments) == 0:
        return None
    return f"{consequence} (prctl {option}: {os.strerror(ctypes.get_errno())})"


def _lock_memory(libc: ctypes.CDLL) -> str | None:
    # ONFAULT locks pages when they are first touched: without it every thread's
    # unused stack would become resident.
    with contextlib.suppress(OSError, ValueError):
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        return _not_locked(os.strerror(ctypes.get_errno()))
    if _limit_binds():
        # Everything mapped from now on would count against the limit, and
        # allocations would fail in the middle of the work.
        libc.munlockall()
        return _not_locked(os.strerror(errno.ENOMEM))
    return None


def _limit_binds() -> bool:
    """Find out whether the memlock limit applies, by mapping beyond it.

    CAP_IPC_LOCK lifts the limit, but only in the initial user namespace, so
    that the capability sets alone do not tell.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        return False
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    try:
        mmap.mmap(-1, limit + mmap.PAGESIZE, flags=flags).close()
    except (OSError, OverflowError):
        return True
    return False


def _not_locked(reason: str) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    size = "off" if limit == resource.RLIM_INFINITY else f"{limit // _KIB} KiB"
    return (
        f"keys may be swapped out: locking memory failed ({reason}; the memlock"
        f" limit is {size}); add CAP_IPC_LOCK or run without swap"
    )
