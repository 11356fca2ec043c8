# SPDX-License-Identifier: Apache-2.0
"""What `harden` achieves, read back from the kernel in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

from csi_driver.keys.hygiene import Hygiene

_PROBE = """
import ctypes, dataclasses, json, resource, sys
from csi_driver.keys.hygiene import harden
made = harden(io_flusher="flusher" in sys.argv)
page = bytearray(64 * 2**20)
page[::4096] = b"x" * len(page[::4096])
libc = ctypes.CDLL(None)
print(json.dumps({
    "made": dataclasses.asdict(made),
    "status": open("/proc/self/status").read(),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "dumpable": libc.prctl(3, 0, 0, 0, 0),
    "flusher": libc.prctl(58, 0, 0, 0, 0),
}))
"""
_LATER = """
from csi_driver.keys import hygiene
hygiene._MCL_CURRENT = 0
made = hygiene.harden()
print(made.memory_locked, len(bytearray(32 * 2**20)))
"""
_FOUR_MIB = 4 * 1024 * 1024


@dataclasses.dataclass
class Probe:
    """What a process says of itself after `harden`."""

    made: Hygiene
    status: str
    core: list[int]
    dumpable: int
    flusher: int

    def locked_kib(self) -> int:
        found = re.search(r"VmLck:\s+(\d+) kB", self.status)
        assert found
        return int(found[1])


def _probe(*prefix: str, arguments: tuple[str, ...] = ()) -> Probe:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _PROBE, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    value = json.loads(done.stdout)
    value["made"]["warnings"] = tuple(value["made"]["warnings"])
    return Probe(**(value | {"made": Hygiene(**value["made"])}))


def _tool(name: str) -> str:
    path = shutil.which(name)
    assert path, f"{name} is needed: apt-get install util-linux"
    return path


def _without_capabilities(limit: int) -> tuple[str, ...]:
    """Return a prefix that runs a program with a memlock limit and no rights."""
    prefix = (_tool("prlimit"), f"--memlock={limit}:{limit}", "--")
    if os.geteuid() != 0:
        return prefix
    setpriv = (_tool("setpriv"), "--bounding-set=-all", "--inh-caps=-all")
    return (*prefix, *setpriv, "--")


def test_core_files_and_debuggers_are_shut_out() -> None:
    probe = _probe()
    assert probe.made.no_core_files
    assert probe.core == [0, 0]
    assert probe.made.not_dumpable
    assert probe.dumpable == 0


def test_what_is_said_about_memory_is_true() -> None:
    probe = _probe()
    if probe.made.memory_locked:
        # More than the 64 MiB that the probe touched after the call.
        assert probe.locked_kib() > 64 * 1024
        assert not any("swapped" in text for text in probe.made.warnings)
    else:
        assert probe.locked_kib() == 0
        assert any("CAP_IPC_LOCK" in text for text in probe.made.warnings)


def test_a_small_limit_is_a_warning_and_not_a_failure_later() -> None:
    probe = _probe(*_without_capabilities(64 * 1024))
    assert not probe.made.memory_locked
    assert probe.locked_kib() == 0
    assert "64 KiB" in " ".join(probe.made.warnings)


def test_a_limit_that_would_bind_later_is_not_risked() -> None:
    # Without MCL_CURRENT mlockall succeeds whatever the process has mapped, as
    # it does in full for a small process under a roomier limit.
    done = subprocess.run(
        [*_without_capabilities(_FOUR_MIB), sys.executable, "-c", _LATER],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["False", str(32 * 2**20)]


def test_the_io_flusher_state_is_reported_as_it_is() -> None:
    probe = _probe(arguments=("flusher",))
    assert probe.made.io_flusher == (probe.flusher == 1)
    assert probe.made.io_flusher != any(
        "CAP_SYS_RESOURCE" in text for text in probe.made.warnings
    )


def test_the_io_flusher_state_is_left_alone_unless_asked() -> None:
    probe = _probe()
    assert not probe.made.io_flusher
    assert not any("CAP_SYS_RESOURCE" in text for text in probe.made.warnings)
