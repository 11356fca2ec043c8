# SPDX-License-Identifier: Apache-2.0
"""I/O through our NBD server against qemu-nbd, on one encrypted image in turns.

Both servers are given to the same client, fio, over a unix socket, and neither
caches: an answered write is on the OSDs with both.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Literal

from benchtools import processes
from benchtools.results import Goal
from benchtools.results import Result
from benchtools.results import middle
from benchtools.volumes import random_key
from benchtools.volumes import volumes
from csi_driver.datapath.client import Datapath
from csi_driver.datapath.state import digest
from csi_driver.domain.ids import VolumeId
from csi_driver.testing.lab_images import MIB
from csi_driver.testing.lab_images import USER
from csi_driver.testing.lab_images import LabImages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.nbd.librbd_image import ImageTarget

IMAGE_BYTES = 512 * MIB
_ROUNDS = 5
_RIVAL = "qemu-nbd, librbd LUKS2, no cache"
_OURS = "ours"


@dataclass(frozen=True, slots=True)
class Work:
    """One pattern of I/O; `unit` is what is counted per second."""

    name: str
    pattern: str
    block: str
    depth: int
    seconds: float
    unit: Literal["IOPS", "MiB/s"]
    at_least: float | None = None

    def run(self, socket: Path) -> float:
        """Let fio do it over the NBD server at `socket`; return its rate."""
        answer = processes.run_json(
            "fio",
            "--name=bench",
            "--ioengine=nbd",
            f"--uri=nbd+unix:///?socket={socket}",
            f"--rw={self.pattern}",
            f"--bs={self.block}",
            f"--iodepth={self.depth}",
            f"--size={IMAGE_BYTES}",
            "--time_based",
            f"--runtime={self.seconds}",
            "--norandommap",
            "--randrepeat=0",
            "--output-format=json",
        )
        done = answer["jobs"][0]["read" if "read" in self.pattern else "write"]
        if self.unit == "IOPS":
            return float(done["iops"])
        return float(done["bw_bytes"]) / MIB


WORKS = (
    Work("4 KiB random read, depth 32", "randread", "4k", 32, 4, "IOPS", 3),
    Work("4 KiB random write, depth 32", "randwrite", "4k", 32, 4, "IOPS", 1),
    Work("1 MiB sequential read, depth 8", "read", "1m", 8, 2, "MiB/s"),
    Work("1 MiB sequential write, depth 8", "write", "1m", 8, 2, "MiB/s"),
)


def measure() -> Iterator[Result]:
    """Take all measurements of the data path."""
    key = os.urandom(24).hex().encode()  # qemu takes a text for a passphrase
    with (
        tempfile.TemporaryDirectory(prefix="rbdcrypt-bench-", dir="/dev/shm") as folder,
        contextlib.closing(LabImages()) as lab,
        lab.image(IMAGE_BYTES, key) as image,
    ):
        place = Path(folder)
        (place / "cephx").write_bytes(lab.client().key.reveal())
        (place / "key").write_bytes(key)
        servers = {_OURS: _ours(image, place), _RIVAL: _rival(image, place)}
        with servers[_OURS]() as socket:
            _fill(socket)
        for work in WORKS:
            yield _compare(work, servers)
    yield from _worker_memory()


type _Serve = Callable[[], AbstractContextManager[Path]]


def _compare(work: Work, servers: dict[str, _Serve]) -> Result:
    """Run one pattern on all servers in turns, the order turned round each time."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(_ROUNDS):
        for name in list(servers)[:: -1 if number % 2 else 1]:
            with servers[name]() as socket:
                rates[name].append(work.run(socket))
    goal = None if work.at_least is None else Goal("ratio", ">=", work.at_least)
    ours, rival = middle(rates[_OURS]), middle(rates[_RIVAL])
    return Result(work.name, ours, work.unit, rival, _RIVAL, goal=goal)


def _fill(socket: Path) -> None:
    """Write every block once: reading an unwritten one would cost nothing."""
    processes.run(
        "fio",
        "--name=fill",
        "--ioengine=nbd",
        f"--uri=nbd+unix:///?socket={socket}",
        "--rw=write",
        "--bs=1m",
        "--iodepth=8",
        f"--size={IMAGE_BYTES}",
    )


# ----------------------------------------------------------------------- servers


def _ours(image: ImageTarget, place: Path) -> _Serve:
    """Return what serves the image by the driver's NBD server, as a worker does."""

    def command(socket: Path) -> list[str | Path]:
        module = (sys.executable, "-m", "csi_driver.testing.nbd_serve")
        keys = ("--key-file", place / "cephx", "--passphrase-file", place / "key")
        where = ("--image", f"{image.pool}/{image.name}", "--user", USER)
        conf = ("--conf", os.environ["CEPH_CONF"])
        return [*module, "--socket", socket, *where, *conf, *keys]

    return lambda: _serving(place, "ours", command)


def _rival(image: ImageTarget, place: Path) -> _Serve:
    """Return what serves it by qemu-nbd.

    --cache=none makes qemu set rbd_cache=false (block/rbd.c), which is what our
    server demands; its default would answer writes from a cache.
    """

    def command(socket: Path) -> list[str | Path]:
        options = (
            f"driver=rbd,pool={image.pool},image={image.name},"
            f"conf={os.environ['CEPH_CONF']},"
            "encrypt.format=luks2,encrypt.key-secret=key"
        )
        secret = ("--object", f"secret,id=key,file={place / 'key'}")
        shared = ("--persistent", "--shared=8", "--cache=none", "--export-name=")
        return ["qemu-nbd", "-k", socket, *secret, "--image-opts", options, *shared]

    return lambda: _serving(place, "rival", command)


@contextlib.contextmanager
def _serving(
    place: Path, name: str, command: Callable[[Path], list[str | Path]]
) -> Iterator[Path]:
    socket, log = place / f"{name}.sock", place / f"{name}.log"
    socket.unlink(missing_ok=True)
    with processes.running(command(socket), log) as process:
        processes.wait_for_socket(socket, process, log, name)
        yield socket


# ------------------------------------------------------------------------ memory


def _worker_memory() -> Iterator[Result]:
    """Look at a real worker: resident memory when idle, and after big requests."""
    run_dir = Path(os.environ["RBDCRYPT_RUN_DIR"])
    datapath = Datapath(run_dir / "datapath.sock")
    with volumes(random_key()) as made:
        volume = made.create()[0]
        made.stage(volume)
        volume_id = VolumeId.parse(volume.volume_id)
        status = datapath.status(volume_id)
        if status is None:
            raise processes.BenchError(f"the datapath does not serve {volume_id}")
        idle = processes.memory(status.worker_pid, "VmRSS")
        yield Result("worker memory, idle", idle, "MiB")
        socket = run_dir / f"{digest(volume_id)}.nbd"
        if not socket.exists():  # a kernel device has no socket to go by
            return
        for work in WORKS[-1:] + WORKS[-2:-1]:
            work.run(socket)
        loaded = processes.memory(status.worker_pid, "VmRSS")
        yield Result("worker memory, after 1 MiB I/O, depth 8", loaded, "MiB")
