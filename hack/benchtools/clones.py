# SPDX-License-Identifier: Apache-2.0
"""How long snapshots, clones and flattens take, beside what Ceph's users do by hand.

Every clone has a key of its own.  What is compared runs in turns.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from csi_client import block
from csi_client import mounted

from benchtools import processes
from benchtools.family import Chain
from benchtools.family import by_key
from benchtools.flattens import flattens
from benchtools.layers import LoadedByHand
from benchtools.results import Goal
from benchtools.results import Result
from benchtools.results import middle
from benchtools.volumes import GIB
from benchtools.volumes import IDLE_SECONDS
from benchtools.volumes import PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.rpc.stubs import csi_pb2

_TURNS = 5
_STAGES = 5
_BY_HAND = 2


def measure() -> Iterator[Result]:
    """Take all measurements of snapshots and clones."""
    yield from _create()
    yield from _stage()
    yield from _snapshot()
    yield from flattens()


# ------------------------------------------------------------------ CreateVolume


def _create() -> Iterator[Result]:
    with by_key() as family:
        small = family.snapshot(family.create(GIB))
        large = family.snapshot(family.create(1024 * GIB))
        family.clone(small, GIB)  # what is loaded at a first call is loaded
        took: dict[str, list[float]] = {"small": [], "large": [], "rival": []}
        for turn in range(_TURNS):
            took["small"].append(family.timed(family.clone, small, GIB))
            took["large"].append(family.timed(family.clone, large, 1024 * GIB))
            if turn < _BY_HAND:
                took["rival"].append(_by_hand(family, small))
    goal = Goal("ours", "<=", 0.5)
    text = "CreateVolume from a snapshot of"
    ours = middle(took["small"])
    yield Result(f"{text} 1 GiB, own key", ours, "s", goal=goal)
    yield Result(f"{text} 1 TiB, own key", middle(took["large"]), "s", goal=goal)
    yield Result(
        f"{text} 1 GiB, against rbd",
        ours,
        "s",
        middle(took["rival"]),
        "rbd clone + rbd encryption format luks2",
        "rival/ours",
        Goal("ratio", ">=", 20),
    )


def _by_hand(family: Chain, snapshot: csi_pb2.Snapshot) -> float:
    """Clone and format as Ceph's users do; the seconds it took."""
    conf = ("rbd", "--conf", os.environ["CEPH_CONF"])
    image = f"{PARAMETERS['pool']}/bench-{secrets.token_hex(8)}"
    source = family.snapshot_path(snapshot)
    with tempfile.NamedTemporaryFile("w", dir="/dev/shm") as file:
        file.write(secrets.token_urlsafe(16))
        file.flush()
        begin = time.monotonic()
        processes.run(*conf, "clone", "--rbd-default-clone-format=2", source, image)
        try:
            processes.run(*conf, "encryption", "format", image, "luks2", file.name)
            return time.monotonic() - begin
        finally:
            processes.run(*conf, "rm", "--no-progress", image)


# --------------------------------------------------------------------- NodeStage


def _stage() -> Iterator[Result]:
    with by_key() as family, LoadedByHand() as rival:
        chain = family.chain(8, mounted("xfs"))
        cases = {
            "block, 2 layers": (chain[1], block()),
            "xfs mounted, 2 layers": (chain[1], mounted("xfs")),
            "block, 8 layers": (chain[7], block()),
        }
        took: dict[str, list[float]] = {name: [] for name in cases}
        by_hand = []
        for volume, capability in cases.values():
            family.stage(volume, capability)  # a first stage does more
            family.unstage(volume)
        for turn in range(_STAGES):
            for name, (volume, capability) in cases.items():
                took[name].append(family.timed(family.stage, volume, capability))
                family.unstage(volume)
                time.sleep(IDLE_SECONDS)
            if turn < _BY_HAND:
                by_hand.append(rival.open())
    limits = {"8": 0.4, "2": 0.25}
    for name, seconds in took.items():
        limit = limits["8" if "8" in name else "2"]
        goal = Goal("ours", "<=", limit)
        yield Result(f"NodeStage, {name}", middle(seconds), "s", goal=goal)
    yield Result(
        "NodeStage, block, 2 layers, against librbd",
        middle(took["block, 2 layers"]),
        "s",
        middle(by_hand),
        "connect + open + load, two argon2id layers (rbd-nbd map does more)",
        "rival/ours",
        Goal("ratio", ">=", 20),
    )


# ---------------------------------------------------------------- CreateSnapshot


def _snapshot() -> Iterator[Result]:
    ours, rival = [], []
    with by_key() as family, contextlib.ExitStack() as stack:
        volume = family.create(GIB)
        family.stage(volume, block())
        device = family.device(volume)
        stack.enter_context(_writing(device))
        image = stack.enter_context(family.image(volume))
        for _ in range(_TURNS):
            ours.append(family.timed(family.snapshot, volume))
            name = f"bench-{secrets.token_hex(4)}"
            rival.append(family.timed(image.create_snap, name))
            image.remove_snap(name)
    yield Result(
        "CreateSnapshot while the volume writes",
        middle(ours),
        "s",
        middle(rival),
        "librbd's create_snap on the same volume",
        goal=Goal("ratio", "<=", 1.1),
    )


@contextlib.contextmanager
def _writing(device: Path) -> Iterator[None]:
    """Have fio write as fast as it can."""
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-bench-") as folder:
        command = (
            *("fio", "--name=w", f"--filename={device}", "--rw=write", "--bs=1M"),
            *("--ioengine=libaio", "--direct=1", "--iodepth=8", "--size=512M"),
            *("--time_based", "--runtime=600"),
        )
        with processes.running(command, Path(folder, "log")):
            time.sleep(1)
            yield
