# SPDX-License-Identifier: Apache-2.0
"""Other people's NBD clients against a server of ours.

Each function drives one tool over a unix socket and raises AssertionError when
the tool disagrees with the server.  Debian: libnbd-bin, python3-libnbd,
qemu-utils, fio.  python3-libnbd exists for Debian's own Python only.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

_PACKAGES = {
    "nbdinfo": "libnbd-bin",
    "nbdcopy": "libnbd-bin",
    "qemu-io": "qemu-utils",
    "fio": "fio",
    "/usr/bin/python3": "python3",
}


def run(*command: str, fails: bool = False) -> str:
    """Run a tool; return its output.  AssertionError when it (does not) fail."""
    package = _PACKAGES[command[0]]
    assert shutil.which(command[0]), f"{command[0]} is missing: install {package}"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False
    )
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, f"{command}: {output}"
    return output if fails else done.stdout


def uri(path: Path, name: str = "") -> str:
    """Return the URI of an export at a unix socket."""
    return f"nbd+unix:///{name}?socket={path}"


def info(path: Path, name: str = "") -> dict[str, Any]:
    """Return what nbdinfo understands of the export."""
    answer = json.loads(run("nbdinfo", "--json", uri(path, name)))
    assert answer["protocol"] == "newstyle-fixed"
    assert not answer["structured"]
    (export,) = answer["exports"]
    assert isinstance(export, dict)
    return export


def listed(path: Path) -> list[str]:
    """Return the names of the exports that nbdinfo lists."""
    answer = json.loads(run("nbdinfo", "--list", "--json", uri(path)))
    return [export["export-name"] for export in answer["exports"]]


def copy_in(path: Path, file: Path) -> None:
    """Have nbdcopy write a file to the export, flushed."""
    run("nbdcopy", "--flush", str(file), uri(path))


def copy_out(path: Path, file: Path) -> None:
    """Have nbdcopy read the export into a file."""
    run("nbdcopy", uri(path), str(file))


def qemu_io(path: Path, *commands: str, fails: bool = False) -> str:
    """Run qemu-io commands, write-back, so that only `write -f` asks for FUA."""
    arguments = [part for command in commands for part in ("-c", command)]
    return run(
        "qemu-io", "-t", "writeback", "-f", "raw", *arguments, uri(path), fails=fails
    )


def fio_verify(path: Path, *, mode: str = "randwrite", size: int, block: str) -> None:
    """Have fio write the export and read it back with checksums."""
    output = run(
        "fio",
        *("--name=verify", "--ioengine=nbd", f"--uri={uri(path)}"),
        *(f"--rw={mode}", f"--bs={block}", f"--size={size}", "--iodepth=32"),
        *("--verify=crc32c", "--do_verify=1", "--verify_fatal=1"),
        "--verify_state_save=0",  # it would be a file in the working directory
        *("--fsync=64", "--output-format=json", "--randrepeat=0"),
    )
    (job,) = json.loads(output[output.index("{") :])["jobs"]
    assert job["error"] == 0, job
    assert job["write"]["io_bytes"] == size
    assert job["read"]["io_bytes"] == size


_INVALID = r"""
import errno, json, nbd, sys

handle = nbd.NBD()
handle.set_strict_mode(0)
handle.connect_unix(sys.argv[1])
size = handle.get_size()

def error(call):
    try:
        call()
    except nbd.Error as failure:
        return failure.errno
    return "success"

data = bytearray(4096)
answers = {
    "read past the end": error(lambda: handle.pread(4096, size)),
    "write past the end": error(lambda: handle.pwrite(data, size)),
    "write across the end": error(lambda: handle.pwrite(data * 2, size - 4096)),
    "misaligned read": error(lambda: handle.pread(512, 512)),
    "misaligned write": error(lambda: handle.pwrite(data, 1)),
    "empty read": error(lambda: handle.pread(0, 0)),
    "empty write": error(lambda: handle.pwrite(bytearray(), 0)),
    "unknown flag": error(lambda: handle.pwrite(data, 0, 1 << 9)),
    "trim": error(lambda: handle.trim(4096, 0)),
    "write zeroes": error(lambda: handle.zero(4096, 0)),
    "cache": error(lambda: handle.cache(4096, 0)),
    "33 MiB read": error(lambda: handle.pread(33 << 20, 0)),
    "33 MiB write": error(lambda: handle.pwrite(bytearray(33 << 20), 0)),
    "good read": error(lambda: handle.pread(4096, 0)),
    "good write": error(lambda: handle.pwrite(data, 0, nbd.CMD_FLAG_FUA)),
    "good flush": error(lambda: handle.flush()),
}
handle.shutdown()
print(json.dumps(answers))
"""


def invalid_requests(path: Path) -> dict[str, str]:
    """Return libnbd's errno names for requests that its strict mode forbids."""
    answers = json.loads(run("/usr/bin/python3", "-c", _INVALID, str(path)))
    assert isinstance(answers, dict)
    return answers
