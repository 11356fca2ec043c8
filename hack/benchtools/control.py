# SPDX-License-Identifier: Apache-2.0
"""How long the driver's calls take, how fast it starts, how much memory a KDF needs.

Calls go over the driver's own sockets.  What is compared runs in turns.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from csi_client import block

from benchtools import processes
from benchtools.bare import Bare
from benchtools.processes import BenchError
from benchtools.results import Goal
from benchtools.results import Result
from benchtools.results import middle
from benchtools.volumes import GIB
from benchtools.volumes import IDLE_SECONDS
from benchtools.volumes import PARAMETERS
from benchtools.volumes import connected
from benchtools.volumes import passphrase
from benchtools.volumes import random_key
from benchtools.volumes import volumes
from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

_CREATES = 5
"""CreateVolume calls per kind in each of the two turns."""
_FORMATS = 2
_STAGES = 7
_STARTS = 3
_MIB = "MiB"


def measure(log: Path) -> Iterator[Result]:
    """Take all measurements of the control path; `log` is the lab's log folder."""
    yield from _create()
    yield from _stage(log / "datapath.log")
    yield from _start_and_memory()


# ------------------------------------------------------------------ CreateVolume


def _create() -> Iterator[Result]:
    ours: list[float] = []
    by_passphrase: list[float] = []
    rival: list[float] = []
    with volumes(random_key()) as keyed, volumes(passphrase()) as worded:
        keyed.create()  # what is loaded at a first call is loaded
        worded.create()
        for _ in range(_FORMATS):
            rival.append(_rbd_format())
            for _ in range(_CREATES):
                ours.append(keyed.create()[1])
                by_passphrase.append(worded.create()[1])
    took = middle(ours)
    yield Result("CreateVolume, random key", took, "s", goal=Goal("ours", "<=", 0.5))
    yield Result(
        "CreateVolume, random key, against rbd",
        took,
        "s",
        middle(rival),
        "rbd create + rbd encryption format luks2",
        "rival/ours",
        Goal("ratio", ">=", 25),
    )
    yield Result("CreateVolume, passphrase", middle(by_passphrase), "s")


def _rbd_format() -> float:
    """Make an encrypted image as Ceph's users do; the seconds it took."""
    conf = ("rbd", "--conf", os.environ["CEPH_CONF"])
    image = f"{PARAMETERS['pool']}/bench-{secrets.token_hex(8)}"
    with tempfile.NamedTemporaryFile("w", dir="/dev/shm") as file:
        file.write(secrets.token_urlsafe(16))
        file.flush()
        begin = time.monotonic()
        processes.run(*conf, "create", "--size", f"{GIB}B", image)
        try:
            processes.run(*conf, "encryption", "format", image, "luks2", file.name)
            return time.monotonic() - begin
        finally:
            processes.run(*conf, "rm", "--no-progress", image)


# --------------------------------------------------------------------- NodeStage


def _stage(log: Path) -> Iterator[Result]:
    bare: list[float] = []
    keyed_seconds: list[float] = []
    attach_seconds: list[float] = []
    worded_seconds: list[float] = []
    with volumes(random_key()) as keyed, volumes(passphrase()) as worded:
        volume, other = keyed.create()[0], worded.create()[0]
        image = Bare(volume.volume_id, keyed.secret)
        # A volume's first stage marks it as used; the later ones are what is asked.
        for each, owner in ((volume, keyed), (other, worded)):
            owner.stage(each)
            owner.unstage(each)
        image.open()
        for _ in range(_STAGES):
            bare.append(image.open())
            keyed_seconds.append(keyed.stage(volume))
            attach_seconds.append(_attach_seconds(log, volume.volume_id))
            keyed.unstage(volume)
            worded_seconds.append(worded.stage(other))
            worded.unstage(other)
    apart = [
        whole - attach
        for whole, attach in zip(keyed_seconds, attach_seconds, strict=True)
    ]
    limits = (0.2, 0.35)
    yield Result(
        "NodeStage, block, random key",
        middle(keyed_seconds),
        "s",
        goal=Goal("ours", "<=", limits[0]),
    )
    yield Result(
        "NodeStage, block, passphrase",
        middle(worded_seconds),
        "s",
        goal=Goal("ours", "<=", limits[1]),
    )
    yield Result("of it device attach", middle(attach_seconds), "s")
    yield Result(
        "NodeStage, random key, attach apart",
        middle(apart),
        "s",
        middle(bare),
        "connect + open + load with python-rbd",
        goal=Goal("ratio", "<=", 2.5),
    )


def _attach_seconds(log: Path, volume_id: str) -> float:
    """Read how long the datapath's last attach of a volume took from its log."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if '"volume open"' not in line:
            continue
        entry = json.loads(line)
        if entry["volume"] == volume_id:
            return float(entry["attach_seconds"])
    raise BenchError(f"{log} does not tell of volume {volume_id}")


# ------------------------------------------------------- a controller of our own


def _start_and_memory() -> Iterator[Result]:
    starts, needs = [], []
    for _ in range(_STARTS):
        seconds, mebibytes = _one_controller()
        starts.append(seconds)
        needs.append(mebibytes)
        time.sleep(IDLE_SECONDS)
    limits = (1, 100)
    yield Result(
        "controller, start to ready",
        middle(starts),
        "s",
        goal=Goal("ours", "<=", limits[0]),
    )
    yield Result(
        "controller, memory of a passphrase create",
        max(needs),
        _MIB,
        goal=Goal("ours", "<=", limits[1]),
    )


def _one_controller() -> tuple[float, float]:
    """Start a controller beside the lab's; its start, and what a create needs.

    The start ends with the first Probe that answers `ready`.  The memory is how
    much the peak after one CreateVolume, its first, exceeds the peak before.
    """
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-bench-") as folder:
        path, log = Path(folder, "csi.sock"), Path(folder, "log")
        endpoint = f"unix://{path}"
        command = (Path(sys.executable).with_name("rbdcrypt-csi"), "controller")
        environment = {**os.environ, "CSI_ENDPOINT": endpoint}
        begin = time.monotonic()
        with processes.running(command, log, environment) as process:
            processes.wait_for_socket(path, process, log, "the controller")
            with connected(endpoint) as channel:
                _wait_until_ready(csi_pb2_grpc.IdentityStub(channel))
                started = time.monotonic() - begin
                before = processes.memory(process.pid, "VmHWM")
                _create_and_delete(csi_pb2_grpc.ControllerStub(channel))
                after = processes.memory(process.pid, "VmHWM")
    return started, after - before


def _wait_until_ready(identity: csi_pb2_grpc.IdentityStub) -> None:
    while not identity.Probe(csi_pb2.ProbeRequest(), timeout=30).ready.value:
        time.sleep(0.002)


def _create_and_delete(controller: csi_pb2_grpc.ControllerStub) -> None:
    request = csi_pb2.CreateVolumeRequest(
        name=f"bench-{secrets.token_hex(8)}",
        capacity_range=csi_pb2.CapacityRange(required_bytes=GIB),
        volume_capabilities=[block()],
        parameters=PARAMETERS,
        secrets=passphrase(),
    )
    volume = controller.CreateVolume(request, timeout=60).volume
    controller.DeleteVolume(
        csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id), timeout=60
    )
