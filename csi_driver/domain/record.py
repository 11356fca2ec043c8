# SPDX-License-Identifier: Apache-2.0
"""The record: what the driver stores about a volume, in the image's metadata.

One versioned JSON value, ASCII only (librbd cuts metadata at NUL and loses
entries with empty values).  This module gives it its form and its state
machine; storing it, by compare-and-set alone, is left to `images`.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Collection
from typing import Any
from typing import Final
from typing import Protocol
from typing import Self

from csi_driver.domain import json_fields as read
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.flattening import FlattenWork
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.limits import NO_LIMITS
from csi_driver.domain.limits import IoLimits
from csi_driver.domain.lineage import ChildIntent
from csi_driver.domain.lineage import Origin
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.parameters import VolumeParameters
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState

RECORD_VERSION: Final = 2
LONGEST_RECORD: Final = 1024 * 1024
"""Bytes; librbd takes more, but every stage reads the record whole.

The most snapshots with the longest names and chains take a third of it."""


class VolumeState(enum.Enum):
    """The life of a volume, in this order; one never finished is never ready."""

    CREATING = "creating"
    READY = "ready"
    DELETED = "deleted"
    """A tombstone: its user deleted it, its dependants may still need it; or
    nobody went on making it."""
    COLLECTING = "collecting"
    """Nothing depends on it; header, keys and image are being removed."""


class EncryptionMode(enum.Enum):
    """How a volume's bytes are protected, and who holds the passphrase."""

    KEYRING = "keyring"
    """LUKS under a random key that the record holds wrapped."""
    PASSPHRASE = "passphrase"  # noqa: S105  # the name of a mode
    """LUKS formatted by others; the Secret's passphrases go to librbd."""
    NONE = "none"

    @property
    def encrypted(self) -> bool:
        """True if a LUKS header has to be there."""
        return self is not EncryptionMode.NONE


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """Everything the driver knows about one volume.

    `desired` is what its user was promised, `actual` what was verified on
    Ceph; both are exported bytes.  `layers` are the header UUIDs of the head's
    chain, own first, as it was when the volume was made or flattened; it is
    empty without a key ring.  `ancestors` is the number of images below the
    head.  A clone is `recovered` once its first stage has replayed the journal.
    `node_secret` is the Secret that the volume's PersistentVolume names.
    """

    name: str
    image_id: str
    state: VolumeState
    mode: EncryptionMode
    parameters: VolumeParameters
    layout: Layout
    desired: EffectiveSize
    actual: EffectiveSize
    block: bool = False
    filesystem: FilesystemState = FilesystemState.NONE
    ring: KeyRing | None = None
    layers: tuple[str, ...] = ()
    ancestors: int = 0
    exports: tuple[ExportEntry, ...] = ()
    origin: Origin | None = None
    recovered: bool = True
    snapshots: tuple[Snapshot, ...] = ()
    children: tuple[ChildIntent, ...] = ()
    flatten: FlattenWork | None = None
    limits: IoLimits = NO_LIMITS
    node_secret: SecretRef | None = None

    @property
    def raw_size(self) -> RawSize:
        """The raw size an image of `actual` exported bytes must have."""
        return self.layout.raw(self.actual)

    def moved_to(self, state: VolumeState) -> Record:
        """Return the record one step further; RecordError on any other step."""
        if state not in _NEXT.get(self.state, ()):
            message = (
                f"volume {self.name!r} is {self.state.value}; it cannot become"
                f" {state.value}"
            )
            raise RecordError(message)
        return dataclasses.replace(self, state=state)

    def require_ready(self) -> Record:
        """Return itself if the volume may be used, else raise why not."""
        if self.state is VolumeState.READY:
            return self
        if self.state is VolumeState.CREATING:
            message = f"volume {self.name!r} is still being created"
            raise PendingError(message)
        message = f"volume {self.name!r} was deleted"
        raise NotFoundError(message)

    def with_export(self, entry: ExportEntry) -> Record:
        """Return the record with one more export.

        An entry of the same node is replaced: one node has one export of a
        volume.  InUseError when a writer would meet a reader.
        """
        others = self.without_export(entry.node_id).exports
        for other in others:
            if entry.read_only and other.read_only:
                continue
            message = (
                f"volume {self.name!r} is staged"
                f" {'read-only' if other.read_only else 'writable'} on node"
                f" {other.node_id!r}; staging it"
                f" {'read-only' if entry.read_only else 'writable'} on"
                f" {entry.node_id!r} has to wait until it is unstaged there"
            )
            raise InUseError(message)
        return dataclasses.replace(self, exports=(*others, entry))

    def without_dead_exports(self, node_id: str, watching: Collection[str]) -> Record:
        """Return the record without entries of nodes that are gone.

        `watching` are the addresses of all clients that watch the image; Ceph
        drops a dead one after 30 s.  The entry of `node_id` stays, since that
        node knows better whether its predecessor is dead.
        """
        kept = tuple(
            each
            for each in self.exports
            if each.node_id == node_id or each.alive(watching)
        )
        return dataclasses.replace(self, exports=kept)

    def without_export(self, node_id: str) -> Record:
        """Return the record without the export of that node."""
        kept = tuple(each for each in self.exports if each.node_id != node_id)
        return dataclasses.replace(self, exports=kept)

    def snapshot_named(self, name: str) -> Snapshot | None:
        """Return the snapshot that the CO calls so."""
        found = (each for each in self.snapshots if each.name == name and name)
        return next(found, None)

    def snapshot_numbered(self, number: int) -> Snapshot | None:
        """Return the snapshot with that RBD id."""
        found = (each for each in self.snapshots if each.number == number and number)
        return next(found, None)

    def with_snapshot(self, rbd_name: str, present: Snapshot | None) -> Record:
        """Return the record with a snapshot's entry changed, or without it."""
        kept = tuple(each for each in self.snapshots if each.rbd_name != rbd_name)
        added = () if present is None else (present,)
        return dataclasses.replace(self, snapshots=(*kept, *added))

    @property
    def removing(self) -> bool:
        """Tell whether a snapshot of a clone is being removed.

        A flatten of the head begins before or after that, but not meanwhile:
        what librbd tells the parent depends on which came first.
        """
        return any(
            each.state is SnapshotState.DELETING and each.ancestors
            for each in self.snapshots
        )

    def with_child(self, child: ChildIntent) -> Record:
        """Return the record with the intent to make a clone; once is enough."""
        others = self.without_child(child.image_name).children
        return dataclasses.replace(self, children=(*others, child))

    def without_child(self, image_name: str) -> Record:
        """Return the record without the intent to make that clone."""
        kept = tuple(each for each in self.children if each.image_name != image_name)
        return dataclasses.replace(self, children=kept)

    def children_of(self, rbd_name: str) -> tuple[ChildIntent, ...]:
        """Return the clones that are being made from a snapshot."""
        return tuple(each for each in self.children if each.snapshot == rbd_name)

    def with_needed_keys(self) -> Record:
        """Return the record with a ring of what head and snapshots still need.

        A snapshot keeps its own chain when the head is flattened.
        """
        if self.ring is None or not self.layers:
            return self  # what the head needs is not known
        needed = {*self.layers, *(key for s in self.snapshots for key in s.layers)}
        spare = {entry.header_uuid for entry in self.ring.entries} - needed
        return dataclasses.replace(self, ring=self.ring.without(spare))

    def flattened(self) -> Record:
        """Return the record of a volume that reads no parent any more."""
        return dataclasses.replace(
            self, layers=self.layers[:1], ancestors=0, flatten=None
        ).with_needed_keys()

    def to_json(self) -> str:
        """Write the record down; the same record gives the same text."""
        return json.dumps(
            {
                "version": RECORD_VERSION,
                "name": self.name,
                "imageID": self.image_id,
                "state": self.state.value,
                "mode": self.mode.value,
                "parameters": self.parameters.to_json_object(),
                "reserve": self.layout.reserve,
                "desired": self.desired.count,
                "actual": self.actual.count,
                "block": self.block,
                "filesystem": self.filesystem.value,
                "ring": _object_of(self.ring),
                "layers": list(self.layers),
                "ancestors": self.ancestors,
                "exports": [each.to_json_object() for each in self.exports],
                "origin": _object_of(self.origin),
                "recovered": self.recovered,
                "snapshots": [each.to_json_object() for each in self.snapshots],
                "children": [each.to_json_object() for each in self.children],
                "flatten": _object_of(self.flatten),
                "limits": self.limits.to_json_object(),
                "nodeSecret": _object_of(self.node_secret),
            },
            ensure_ascii=True,
            separators=(",", ":"),
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read a record; RecordError says why it cannot be trusted.

        A record has one spelling, the one `to_json` gives it.  So nothing in
        it can be twice, unknown, of another type, or read as a default.
        """
        fields = _loaded(text)
        try:
            record = cls(
                name=read.string(fields, "name"),
                image_id=read.string(fields, "imageID"),
                state=VolumeState(fields["state"]),
                mode=EncryptionMode(fields["mode"]),
                parameters=VolumeParameters.from_json_object(fields["parameters"]),
                layout=Layout(read.integer(fields, "reserve")),
                desired=EffectiveSize(read.integer(fields, "desired")),
                actual=EffectiveSize(read.integer(fields, "actual")),
                block=read.truth(fields, "block"),
                filesystem=FilesystemState(fields["filesystem"]),
                ring=_read(KeyRing, fields, "ring"),
                layers=read.strings(fields, "layers"),
                ancestors=read.natural(fields, "ancestors"),
                exports=_list(ExportEntry, fields, "exports"),
                origin=_read(Origin, fields, "origin"),
                recovered=read.truth(fields, "recovered"),
                snapshots=_list(Snapshot, fields, "snapshots"),
                children=_list(ChildIntent, fields, "children"),
                flatten=_read(FlattenWork, fields, "flatten"),
                limits=IoLimits.from_json_object(fields["limits"]),
                node_secret=_read(SecretRef, fields, "nodeSecret"),
            )
        except _DAMAGE as error:
            message = f"the volume's record is damaged: {error!r}"
            raise RecordError(message) from error
        if record.to_json() != text:
            message = "the volume's record is not spelt as this driver writes it"
            raise RecordError(message)
        return record


class _Part(Protocol):
    """A value that is one object of the record's JSON."""

    def to_json_object(self) -> dict[str, Any]: ...

    @classmethod
    def from_json_object(cls, fields: Any, /) -> Self: ...


def _object_of(part: _Part | None) -> dict[str, Any] | None:
    return None if part is None else part.to_json_object()


def _read[P: _Part](kind: type[P], fields: dict[str, Any], name: str) -> P | None:
    found = read.optional(fields, name)
    return None if found is None else kind.from_json_object(found)


def _list[P: _Part](kind: type[P], fields: dict[str, Any], name: str) -> tuple[P, ...]:
    return tuple(kind.from_json_object(each) for each in read.objects(fields, name))


_DAMAGE: Final = (
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    SizeError,
    InvalidRequestError,
)

_NEXT: Final = {
    VolumeState.CREATING: (VolumeState.READY, VolumeState.DELETED),
    VolumeState.READY: (VolumeState.DELETED,),
    VolumeState.DELETED: (VolumeState.COLLECTING,),
}

_FIELDS: Final = frozenset(
    {
        "version",
        "name",
        "imageID",
        "state",
        "mode",
        "parameters",
        "reserve",
        "desired",
        "actual",
        "block",
        "filesystem",
        "ring",
        "layers",
        "ancestors",
        "exports",
        "origin",
        "recovered",
        "snapshots",
        "children",
        "flatten",
        "limits",
        "nodeSecret",
    },
)


def _loaded(text: str) -> dict[str, Any]:
    """Parse the text and check version and fields, before anything is used."""
    if len(text) > LONGEST_RECORD:
        message = f"a record of {len(text)} bytes is longer than {LONGEST_RECORD}"
        raise RecordError(message)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = "the volume's record is not JSON"
        raise RecordError(message) from error
    version = fields.get("version") if isinstance(fields, dict) else None
    if version != RECORD_VERSION:
        message = (
            f"the volume's record has version {version!r}, this driver reads"
            f" version {RECORD_VERSION}: use the driver version that wrote it"
        )
        raise RecordError(message)
    if set(fields) != _FIELDS:
        differing = ", ".join(sorted(set(fields) ^ _FIELDS))
        message = f"the volume's record is damaged: unknown or absent {differing}"
        raise RecordError(message)
    return dict(fields)
