# SPDX-License-Identifier: Apache-2.0
"""Every operation done twice: by the driver on a place, and on the model.

Afterwards `compare` reads everything there is and holds it against the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from typing import Final

import pytest

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import CapacityRange
from csi_driver.images.chains import read_chain
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import open_ring
from csi_driver.keys.ring import rewrap
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import SnapshotRequest
from csi_driver.provisioning.requests import Source
from tests.unit.model.data import SECRETS
from tests.unit.model.data import Data
from tests.unit.model.data import Place
from tests.unit.model.data import Stage
from tests.unit.model.dying import Trouble
from tests.unit.model.dying import attempt
from tests.unit.model.model import Model
from tests.unit.model.model import View
from tests.unit.provisioning.worlds import until_free

BLOCK_VOLUME: Final = Capability(AccessMode.SINGLE_NODE_WRITER, block=True)
_SHORT_READ: Final = 32 * 1024
"""Bytes: shorter than librbd's sparse reads, so that it decrypts holes, too."""


class Driver:
    """The driver on a place, and the model of what it has done there."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.world = place.world
        self.model = Model()
        self._ids: dict[str, VolumeId] = {}
        self._snapshot_ids: dict[str, SnapshotId] = {}
        self._stages: dict[str, Stage] = {}
        self.tombstones = 0
        self._count = 0
        self._touched = ""
        self._eye = self.world.connector.connect(self.world.cluster)

    def new_name(self, kind: str) -> str:
        """Return a name that was not used before."""
        self._count += 1
        return f"{kind}{self._count}"

    # --------------------------------------------------- the controller's work

    def create(
        self, secret: str, size: int, object_size: int, trouble: Trouble | None
    ) -> str:
        """Create an empty volume; return its name."""
        name = self.new_name("volume")
        request = self._request(name, secret, size, object_size)
        self._create(name, request, trouble)
        self.model.create(name, secret, size, object_size)
        return name

    def clone(
        self, source: str, secret: str, added: int, trouble: Trouble | None
    ) -> str:
        """Clone a volume or snapshot, `added` bytes larger; return its name.

        "" if it has to be refused, and was.
        """
        name = self.new_name("volume")
        found = self.model.source(source)
        size = found.view.size + added
        secrets = dict(SECRETS[secret])
        theirs = self._secret_of(source)
        if theirs != secret:
            for key, value in SECRETS[theirs].items():
                secrets[f"source{key[0].upper()}{key[1:]}"] = value
        asked: Source
        asked = self._snapshot_ids.get(source) or self._ids[source]
        request = dataclasses.replace(
            self._request(name, secret, size), secrets=secrets, source=asked
        )
        if found.view.encrypted and not secret:
            with pytest.raises(InvalidRequestError):
                self.world.volumes.create(request)
            return ""
        self._create(name, request, trouble)
        self.model.clone(name, secret, source, size)
        return name

    def snapshot(self, volume: str, trouble: Trouble | None) -> str:
        """Take a snapshot; return its name."""
        name = self.new_name("snapshot")
        request = SnapshotRequest(name, self._ids[volume])
        attempt(self.place, trouble, lambda c: c.volumes.create_snapshot(request))
        made = until_free(lambda: self.world.volumes.create_snapshot(request))
        self.model.snapshot(name, volume)
        self._snapshot_ids[name] = made.snapshot_id
        assert made.size.count == self.model.snapshots[name].view.size
        self._touched = volume
        return name

    def delete_volume(self, volume: str, trouble: Trouble | None) -> None:
        """Delete a volume; while it is staged that is refused."""
        volume_id = self._ids[volume]
        if volume in self._stages:
            with pytest.raises(InUseError):
                self.world.volumes.delete(volume_id)
            self.unstage(volume)
        attempt(self.place, trouble, lambda c: c.volumes.delete(volume_id))
        until_free(lambda: self.world.volumes.delete(volume_id))
        del self.model.volumes[volume]
        self.tombstones += 1

    def delete_snapshot(self, snapshot: str, trouble: Trouble | None) -> None:
        """Delete a snapshot."""
        snapshot_id = self._snapshot_ids.pop(snapshot)
        attempt(self.place, trouble, lambda c: c.volumes.delete_snapshot(snapshot_id))
        until_free(lambda: self.world.volumes.delete_snapshot(snapshot_id))
        del self.model.snapshots[snapshot]

    def expand(self, volume: str, added: int, *, now: bool) -> None:
        """Promise a bigger size; the node grows now, or at the next stage."""
        known = self.model.volumes[volume]
        size = known.desired + added
        expansion = self.world.volumes.expand(self._ids[volume], CapacityRange(size))
        assert expansion.size.count == size
        known.desired = size
        if now and volume in self._stages:
            self._stages[volume].grow()
            known.view.grow(size)
        elif now:
            self._stage(volume)

    def rotate(self, volume: str, secret: str) -> None:
        """Wrap the keys of a volume under another Secret."""
        known = self.model.volumes[volume]
        assert known.secret
        assert secret

        def rewrapped(present: Record) -> Record:
            assert present.ring is not None
            source = parse_key_source(SECRETS[known.secret])
            with open_ring(present.ring, source) as opened:
                ring = rewrap(opened, parse_key_source(SECRETS[secret]))
            return dataclasses.replace(present, ring=ring)

        change_record(self._pool, self._ids[volume].image_id, rewrapped)
        known.secret = secret

    def collect(self, trouble: Trouble | None) -> None:
        """Look for tombstones once."""
        world = self.world
        place = (world.cluster, world.pool_name, world.namespace)
        attempt(self.place, trouble, lambda c: c.collector.look(*place))
        world.collect()
        self.tombstones = len(list(world.collector.pending()))

    # --------------------------------------------------------- the node's work

    def write(self, volume: str, offset: int, data: bytes) -> None:
        """Write to a volume; it is staged if need be."""
        self._stage(volume).write(offset, data)
        self.model.write(volume, offset, data)
        self._touched = volume

    def flatten(self, volume: str, cancel_at: int | None) -> None:
        """Flatten a volume, or cancel that after so many objects."""
        data = self._stage(volume)
        known = self.model.volumes[volume]

        def go_on(done: int, _total: int) -> bool:
            return cancel_at is None or done < cancel_at

        self._touched = volume
        if not known.ancestors:
            with pytest.raises(PreconditionError):
                data.flatten(go_on)
            return
        try:
            data.flatten(go_on)
        except CancelledError:
            assert cancel_at is not None
            self.model.flatten(volume, whole=False)
            return
        self.model.flatten(volume)
        change_record(self._pool, self._ids[volume].image_id, Record.flattened)

    def unstage(self, volume: str) -> None:
        """Close a volume."""
        self._stages.pop(volume).close()

    def crash(self, volume: str) -> None:
        """Let the node die while it holds the lock; a successor takes over."""
        self._stage(volume)
        dead = self._stages.pop(volume)
        self._stage(volume)
        with contextlib.suppress(Exception):
            dead.data.close()
        dead.ceph.close()

    @property
    def staged(self) -> set[str]:
        """The volumes that are open for writing."""
        return set(self._stages)

    # ---------------------------------------------------------------- comparing

    def compare(self) -> None:
        """Read everything and hold it against the model."""
        volumes = self.world.volumes
        listed = {str(each.volume_id) for each in volumes.list("", 0).volumes}
        assert listed == {str(self._ids[name]) for name in self.model.volumes}
        found = volumes.list_snapshots("", 0).snapshots
        assert {each.snapshot_id for each in found} == set(self._snapshot_ids.values())
        for name, volume in self.model.volumes.items():
            self._compare_volume(name, volume.view)
        for name, snapshot in self.model.snapshots.items():
            number = self._snapshot_ids[name].number
            record = read_record(self._pool, self._snapshot_ids[name].volume.image_id)
            data = self.place.open(
                self._pool, record, self._secret_of(name), snapshot=number
            )
            with contextlib.closing(data):
                short = self._touched == snapshot.volume.name
                _require_same(name, data, snapshot.view, short=short)
        self._touched = ""

    def end(self, order: int) -> None:
        """Delete everything in some order; nothing at all may be left."""
        left = [*self.model.volumes, *self.model.snapshots]
        random.Random(order).shuffle(left)  # noqa: S311  # an order, no secret
        for name in left:
            if name in self.model.snapshots:
                self.delete_snapshot(name, None)
            else:
                self.delete_volume(name, None)
        self.world.collect_all()
        assert self.world.content() == {}
        assert self.world.images() == []

    def close(self) -> None:
        """Close what is open."""
        for name in list(self._stages):
            with contextlib.suppress(Exception):
                self.unstage(name)
        self._eye.close()

    def _compare_volume(self, name: str, view: View) -> None:
        known = self.model.volumes[name]
        record = read_record(self._pool, self._ids[name].image_id)
        assert record.state is VolumeState.READY
        assert record.desired.count == known.desired
        assert record.actual.count == view.size
        assert record.ancestors == known.ancestors
        chain = read_chain(self._pool, record.image_id)
        assert len(chain) == known.ancestors + 1
        assert record.layers == tuple(each.key for each in chain if each.key)
        assert record.with_needed_keys() == record
        short = self._touched == name
        data = self.place.open(self._pool, record, known.secret, read_only=True)
        with contextlib.closing(data):
            _require_same(name, data, view, short=short)

    # ------------------------------------------------------------------ details

    @property
    def _pool(self) -> Pool:
        return self._eye.pool(self.world.pool_name, self.world.namespace)

    def _secret_of(self, source: str) -> str:
        """Return the name of what opens a volume or, in its record, a snapshot."""
        snapshot = self.model.snapshots.get(source)
        return (snapshot.volume if snapshot else self.model.volumes[source]).secret

    def _request(
        self, name: str, secret: str, size: int, object_size: int = 0
    ) -> CreateRequest:
        parameters = {"objectSize": str(object_size)} if object_size else {}
        request = self.world.request(
            name,
            size,
            secrets=SECRETS[secret],
            capability=BLOCK_VOLUME,
            encrypted="true" if secret else "false",
        )
        return dataclasses.replace(
            request, parameters={**request.parameters, **parameters}
        )

    def _create(
        self, name: str, request: CreateRequest, trouble: Trouble | None
    ) -> None:
        attempt(self.place, trouble, lambda c: c.volumes.create(request))
        made = until_free(lambda: self.world.volumes.create(request))
        assert made.size.count == request.capacity.required
        self._ids[name] = made.volume_id

    def _stage(self, volume: str) -> Data:
        if volume not in self._stages:
            known = self.model.volumes[volume]
            image_id = self._ids[volume].image_id
            stage = Stage.open(self.place, image_id, known.secret)
            self._stages[volume] = stage
            known.view.grow(known.desired)
        return self._stages[volume].data


def _require_same(name: str, data: Data, view: View, *, short: bool) -> None:
    assert data.size() == view.size, name
    pieces = _SHORT_READ if short else max(view.size, 1)
    for offset in range(0, view.size, pieces):
        found = data.read(offset, min(pieces, view.size - offset))
        wrong = view.difference(offset, found)
        assert not wrong, f"{name}: {wrong}"
