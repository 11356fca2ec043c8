# SPDX-License-Identifier: Apache-2.0
"""Volumes and clones for the tests, made through the port to Ceph alone."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Final

import rbd

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import header_kind
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.ids import new_image_name
from csi_driver.domain.lineage import Origin
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import MIB
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.domain.snapshots import new_snapshot_name
from csi_driver.images.chains import FIRST_BYTES
from csi_driver.images.chains import read_chain
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.headers import clone_header
from csi_driver.images.headers import make_header
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import create_record
from csi_driver.images.records import read_record
from csi_driver.images.values import NewClone
from csi_driver.images.values import SnapshotPath
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import empty_ring
from csi_driver.keys.ring import new_dek
from csi_driver.keys.ring import open_ring
from csi_driver.provisioning.finding import Finding
from csi_driver.provisioning.findings import findings
from csi_driver.provisioning.inspection import inspect
from csi_driver.provisioning.unlocking import unlocked
from tests.ceph.provisioning.real import CephWorld
from tests.unit.provisioning.worlds import SECRET

ROOT: Final = Path(__file__).resolve().parents[3]
SIZE: Final = 24 * MIB


class Maker:
    """Makes what a test needs in the world's place, and damages it."""

    def __init__(self, world: CephWorld, directory: Path) -> None:
        self.world = world
        self.ceph = world.connector.connect(world.cluster)
        self.pool: Pool = self.ceph.pool(world.pool_name, world.namespace)
        self.config = directory / "config.json"
        self.config.write_text(world.config_text)
        self.secret = directory / "secret.json"
        self.secret.write_text(json.dumps({"kind": "Secret", "stringData": SECRET}))

    def close(self) -> None:
        self.ceph.close()

    def volume(
        self,
        name: str,
        size: int = SIZE,
        *,
        encrypted: bool = True,
        object_size: int = 4 * MIB,
    ) -> Record:
        """Make a volume whose whole content is a pattern."""
        request = self.world.request(
            name,
            size,
            secrets=SECRET if encrypted else {},
            encrypted="true" if encrypted else "false",
            objectSize=str(object_size),
        )
        made = self.world.volumes.create(request)
        image_id = made.volume_id.image_id
        layers = tuple(each.key or "" for each in read_chain(self.pool, image_id))
        record = self.change(
            image_id, layers=layers if encrypted else (), filesystem=FilesystemState.RAW
        )
        self.write(record, 0, pattern(name, size))
        return record

    def change(self, image_id: str, **fields: Any) -> Record:
        """Change fields of a record."""
        return change_record(
            self.pool, image_id, lambda old: dataclasses.replace(old, **fields)
        )

    def record(self, record: Record) -> Record:
        return read_record(self.pool, record.image_id)

    def volume_id(self, record: Record) -> VolumeId:
        return VolumeId(self.pool.location, record.image_id)

    def image_name(self, record: Record) -> str:
        with self.pool.open_raw(record.image_id, read_only=True) as image:
            return image.name

    def snapshot(self, record: Record, name: str) -> Snapshot:
        """Take a snapshot and complete its entry."""
        rbd_name = new_snapshot_name()
        with self.pool.open_raw(record.image_id) as image:
            image.create_snapshot(rbd_name)
            (found,) = [each for each in image.snapshots() if each.name == rbd_name]
        present = self.record(record)
        taken = Snapshot(
            name=name,
            rbd_name=rbd_name,
            state=SnapshotState.READY,
            filesystem=present.filesystem,
            number=found.number,
            size=present.layout.effective(found.size),
            created=found.created,
            layers=present.layers,
            ancestors=present.ancestors,
        )
        change_record(
            self.pool,
            record.image_id,
            lambda old: old.with_snapshot(rbd_name, taken),
        )
        return taken

    def clone(
        self, source: Record, name: str, *, extra_features: tuple[str, ...] = ()
    ) -> Record:
        """Make a clone of a fresh snapshot, as the driver does."""
        snapshot = self.snapshot(source, f"for {name}")
        source = self.record(source)
        parameters = source.parameters
        path = SnapshotPath(
            self.pool.pool_name,
            self.pool.location.namespace,
            self.image_name(source),
            snapshot.rbd_name,
        )
        image_name = new_image_name()
        features = (*parameters.features, *extra_features)
        to = NewClone(image_name, parameters.striping, features)
        self.pool.clone_image(path, to)
        image_id = self.pool.find_image(image_name)
        assert image_id is not None
        record = dataclasses.replace(
            source,
            name=name,
            image_id=image_id,
            snapshots=(),
            ancestors=source.ancestors + 1,
            origin=Origin(str(self.volume_id(source))),
        )
        if source.mode is EncryptionMode.KEYRING:
            record = self._formatted(source, record)
        create_record(self.pool, record)
        Directory(self.pool).claim(Entry(name, image_name, image_id))
        return record

    def _formatted(self, source: Record, record: Record) -> Record:
        """Write the clone's own header; return its record with its key ring."""
        own, dek = uuid.uuid4(), new_dek()
        header = clone_header(make_header(dek, own, source.layout))
        with self.pool.open_raw(record.image_id) as image:
            covered = image.read_header(FIRST_BYTES)
            image.write_clone_header(header, covered)
        assert source.ring is not None
        with (
            empty_ring(parse_key_source(SECRET)) as ring,
            open_ring(source.ring, parse_key_source(SECRET)) as old,
        ):
            ring.add_dek(str(own), dek)
            ring.add_from(old, source.layers)
            return dataclasses.replace(
                record, ring=ring.ring, layers=(str(own), *source.layers)
            )

    def write(self, record: Record, offset: int, data: bytes) -> None:
        """Write through the handle that suits the volume."""
        if not record.mode.encrypted:
            with self.rbd_image(record) as image:
                image.write(data, offset)
            return
        with unlocked(record, SECRET) as keys:
            specs = keys.specs(read_chain(self.pool, record.image_id))
            with self.pool.open_loaded(record.image_id, specs) as loaded:
                loaded.write(offset, data)

    def content(self, record: Record, snapshot: int = 0) -> bytes:
        """Return all exported bytes of head or snapshot."""
        record = self.record(record)
        size = record.actual.count
        if snapshot:
            known = record.snapshot_numbered(snapshot)
            assert known is not None
            size = known.size.count
        with (
            unlocked(record, SECRET) as keys,
            keys.open(self.pool, read_only=True, snapshot=snapshot) as content,
        ):
            return content.image.read(0, size)

    def rbd_image(self, record: Record) -> Any:
        """Lend the image as plain python-rbd, as an administrator of Ceph."""
        return _Opened(self.world, record.image_id)

    def kind(self, record: Record) -> HeaderKind:
        with self.pool.open_raw(record.image_id, read_only=True) as image:
            return header_kind(image.read_header(8))

    def run(
        self, *words: str, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `rbdcrypt-csi volume …` on this place."""
        return subprocess.run(
            self.command(*words),
            env={**self.environment, **variables},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )

    def command(self, *words: str) -> list[str]:
        return [
            *(sys.executable, "-m", "csi_driver", "volume", *words),
            *("--clusters-file", str(self.config), "--log-format", "console"),
        ]

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    def findings(self, record: Record) -> dict[str, Finding]:
        """Return what is found without a Secret, by code."""
        seen = inspect(self.pool, record.image_id)
        return {each.code: each for each in findings(seen)}

    def check(self, record: Record, *words: str) -> dict[str, dict[str, Any]]:
        """Return what `volume check` finds, by code."""
        done = self.run("check", str(self.volume_id(record)), *words, "--output=json")
        (checked,) = json.loads(done.stdout)
        found = {each["code"]: each for each in checked["findings"]}
        wrong = any(each["wrong"] for each in checked["findings"])
        assert done.returncode == int(wrong), done.stderr
        assert checked["ok"] is not wrong
        return found


class _Opened:
    """One image through python-rbd, with its connection."""

    def __init__(self, world: CephWorld, image_id: str) -> None:
        self._context = world.ioctx()
        self._image_id = image_id

    def __enter__(self) -> Any:
        ioctx = self._context.__enter__()
        self._image = rbd.Image(ioctx, image_id=self._image_id)
        return self._image

    def __exit__(self, *error: object) -> None:
        self._image.close()
        self._context.__exit__(None, None, None)


def pattern(name: str, size: int) -> bytes:
    """Return bytes that differ from block to block and from name to name."""
    block = b"".join(
        f"{name} {number:08d} ".encode().ljust(64, b".") for number in range(64)
    )
    return b"".join(
        number.to_bytes(8, "big") + block[8:4096] for number in range(size // 4096)
    )
