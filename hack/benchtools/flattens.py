# SPDX-License-Identifier: Apache-2.0
"""How long a flatten of 1 GiB takes: ours by hand and in the datapath, and librbd's."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from csi_client import block

from benchtools import processes
from benchtools.family import by_key
from benchtools.processes import BenchError
from benchtools.results import Goal
from benchtools.results import Result
from benchtools.results import middle
from benchtools.volumes import GIB
from csi_driver.datapath.client import Datapath
from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.ids import VolumeId
from csi_driver.images.ceph import CephConnector
from csi_driver.images.chains import read_chain
from csi_driver.images.connections import SharedConnections
from csi_driver.images.loaded import load
from csi_driver.images.records import read_record
from csi_driver.provisioning.flattening import Flattening
from csi_driver.provisioning.unlocking import unlocked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchtools.family import Chain
    from csi_driver.rpc.stubs import csi_pb2

_TURNS = 2


def flattens() -> Iterator[Result]:
    """Measure flattening clones of a full volume of 1 GiB."""
    ours, rival, behind = [], [], []
    with by_key() as family:
        source = family.create(GIB)
        family.stage(source, block())
        _fill(family.device(source))
        family.unstage(source)
        snapshot = family.snapshot(source)
        for _ in range(_TURNS):
            ours.append(_by_command(family, family.clone(snapshot, GIB)))
            rival.append(_by_librbd(family, family.clone(snapshot, GIB)))
            behind.append(_behind(family, family.clone(snapshot, GIB)))
    yield Result(
        "flatten of 1 GiB, by command",
        middle(ours),
        "s",
        middle(rival),
        "librbd's flatten of a loaded clone",
        goal=Goal("ratio", "<=", 1.3),
    )
    yield Result("flatten of 1 GiB, in the background", middle(behind), "s")


def _fill(device: Path) -> None:
    processes.run(
        *("fio", "--name=fill", f"--filename={device}", "--rw=write", "--bs=4M"),
        *("--ioengine=libaio", "--direct=1", "--iodepth=4", f"--size={GIB}"),
        *("--refill_buffers", "--output-format=json"),
    )


def _by_command(family: Chain, volume: csi_pb2.Volume) -> float:
    """Flatten as `rbdcrypt-csi volume flatten` does, without Python's start."""
    clusters = _clusters()
    connector = CephConnector(clusters)
    shared = SharedConnections(connector, clusters)
    volume_id = VolumeId.parse(volume.volume_id)
    with (
        contextlib.closing(shared),
        contextlib.closing(connector.connect("lab")) as own,
    ):
        work = Flattening(own, shared, volume_id)
        return family.timed(work.run, family.secrets_of[volume.volume_id])


def _by_librbd(family: Chain, volume: csi_pb2.Volume) -> float:
    """Open, load and flatten with python-rbd alone."""
    volume_id = VolumeId.parse(volume.volume_id)
    with contextlib.closing(CephConnector(_clusters()).connect("lab")) as ceph:
        pool = ceph.pool_at(volume_id.location)
        record = read_record(pool, volume_id.image_id)
        chain = read_chain(pool, volume_id.image_id)
        with unlocked(record, family.secrets_of[volume.volume_id]) as keys:
            specs = keys.specs(chain)
            begin = time.monotonic()
            with family.image(volume) as image:
                load(image, specs)
                image.flatten()
            return time.monotonic() - begin


def _behind(family: Chain, volume: csi_pb2.Volume) -> float:
    """Let the datapath flatten a staged, idle clone."""
    datapath = Datapath(Path(os.environ["RBDCRYPT_RUN_DIR"], "datapath.sock"))
    volume_id = VolumeId.parse(volume.volume_id)
    family.stage(volume, block())
    begin = time.monotonic()
    datapath.flatten(volume_id)
    while _state(datapath, volume_id) is not FlattenState.DONE:
        if time.monotonic() - begin > 300:  # noqa: PLR2004  # seconds
            raise BenchError("the datapath does not flatten")
        time.sleep(0.05)
    took = time.monotonic() - begin
    family.unstage(volume)
    return took


def _state(datapath: Datapath, volume_id: VolumeId) -> Any:
    status = datapath.status(volume_id)
    counters = status.counters if status else None
    return counters.flatten.state if counters and counters.flatten else None


def _clusters() -> Clusters:
    return parse_clusters(Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text())
