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
from collections.abc import Mapping
from typing import Any
from typing import Final

from csi_driver.domain.access import Filesystem
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.keyring import KeyRing
from csi_driver.domain.parameters import SecretRef
from csi_driver.domain.parameters import VolumeParameters
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping

RECORD_VERSION: Final = 1
LONGEST_RECORD: Final = 256 * 1024
"""Bytes; librbd takes far more, but every stage reads the record whole."""


class VolumeState(enum.Enum):
    """The life of a volume, in this order and no other."""

    CREATING = "creating"
    READY = "ready"
    DELETED = "deleted"
    """A tombstone: its user deleted it, its dependants may still need it."""
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
class ExportEntry:
    """One export of the volume: which node, in which boot, as which client.

    `client_address` is the client that does the I/O.  A reader does not watch
    the image with that one, so `watcher_address` names the client that does;
    "" means the same.  Entries inform; the lock and the watchers decide.
    """

    node_id: str
    boot_id: str
    client_address: str
    read_only: bool
    watcher_address: str = ""

    def alive(self, watching: Collection[str]) -> bool:
        """Tell whether the export's client is among those that watch the image."""
        return (self.watcher_address or self.client_address) in watching


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """Everything the driver knows about one volume.

    `desired` is what its user was promised, `actual` what was verified on
    Ceph; both are exported bytes.
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
    exports: tuple[ExportEntry, ...] = ()

    @property
    def raw_size(self) -> RawSize:
        """The raw size an image of `actual` exported bytes must have."""
        return self.layout.raw(self.actual)

    def moved_to(self, state: VolumeState) -> Record:
        """Return the record one step further; RecordError on any other step."""
        if _NEXT.get(self.state) is not state:
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
        volume.  PreconditionError when a writer would meet a reader.
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
            raise PreconditionError(message)
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

    def to_json(self) -> str:
        """Write the record down; the same record gives the same text."""
        return json.dumps(
            {
                "version": RECORD_VERSION,
                "name": self.name,
                "imageID": self.image_id,
                "state": self.state.value,
                "mode": self.mode.value,
                "parameters": _parameters_to_json(self.parameters),
                "reserve": self.layout.reserve,
                "desired": self.desired.count,
                "actual": self.actual.count,
                "block": self.block,
                "filesystem": self.filesystem.value,
                "ring": None if self.ring is None else self.ring.to_json_object(),
                "exports": [_export_to_json(each) for each in self.exports],
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
                name=_string(fields, "name"),
                image_id=_string(fields, "imageID"),
                state=VolumeState(fields["state"]),
                mode=EncryptionMode(fields["mode"]),
                parameters=_parameters_from_json(fields["parameters"]),
                layout=Layout(_integer(fields, "reserve")),
                desired=EffectiveSize(_integer(fields, "desired")),
                actual=EffectiveSize(_integer(fields, "actual")),
                block=_truth(fields, "block"),
                filesystem=FilesystemState(fields["filesystem"]),
                ring=(
                    None
                    if fields["ring"] is None
                    else KeyRing.from_json_object(fields["ring"])
                ),
                exports=tuple(_export_from_json(each) for each in fields["exports"]),
            )
        except _DAMAGE as error:
            message = f"the volume's record is damaged: {error!r}"
            raise RecordError(message) from error
        if record.to_json() != text:
            message = "the volume's record is not spelt as this driver writes it"
            raise RecordError(message)
        return record


_DAMAGE: Final = (
    LookupError,
    TypeError,
    ValueError,
    SizeError,
    InvalidRequestError,
)

_NEXT: Final = {
    VolumeState.CREATING: VolumeState.READY,
    VolumeState.READY: VolumeState.DELETED,
    VolumeState.DELETED: VolumeState.COLLECTING,
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
        "exports",
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


def _parameters_to_json(given: VolumeParameters) -> dict[str, Any]:
    secret = given.secret
    return {
        "cluster": given.cluster,
        "pool": given.pool,
        "dataPool": given.data_pool,
        "namespace": given.namespace,
        "features": list(given.features),
        "objectSize": given.striping.object_size,
        "stripeUnit": given.striping.stripe_unit,
        "stripeCount": given.striping.stripe_count,
        "mkfsOptions": given.mkfs_options,
        "filesystem": given.filesystem.value if given.filesystem else None,
        "encrypted": given.encrypted,
        "secret": [secret.namespace, secret.name] if secret else None,
        "pvName": given.pv_name,
    }


def _parameters_from_json(fields: Mapping[str, Any]) -> VolumeParameters:
    secret = fields["secret"]
    filesystem = fields["filesystem"]
    return VolumeParameters(
        cluster=_string(fields, "cluster"),
        pool=_string(fields, "pool"),
        data_pool=_string(fields, "dataPool"),
        namespace=_string(fields, "namespace"),
        features=tuple(str(name) for name in fields["features"]),
        striping=Striping(
            _integer(fields, "objectSize"),
            _integer(fields, "stripeUnit"),
            _integer(fields, "stripeCount"),
        ),
        mkfs_options=_string(fields, "mkfsOptions"),
        filesystem=None if filesystem is None else Filesystem(filesystem),
        encrypted=_truth(fields, "encrypted"),
        secret=None if secret is None else SecretRef(str(secret[0]), str(secret[1])),
        pv_name=_string(fields, "pvName"),
    )


def _export_to_json(entry: ExportEntry) -> dict[str, Any]:
    return {
        "node": entry.node_id,
        "boot": entry.boot_id,
        "client": entry.client_address,
        "readOnly": entry.read_only,
        "watcher": entry.watcher_address,
    }


def _export_from_json(fields: Mapping[str, Any]) -> ExportEntry:
    return ExportEntry(
        node_id=_string(fields, "node"),
        boot_id=_string(fields, "boot"),
        client_address=_string(fields, "client"),
        read_only=_truth(fields, "readOnly"),
        watcher_address=_string(fields, "watcher"),
    )


def _string(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        message = f"{name} is not a string"
        raise TypeError(message)
    return value


def _integer(fields: Mapping[str, Any], name: str) -> int:
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"{name} is not an integer"
        raise TypeError(message)
    return value


def _truth(fields: Mapping[str, Any], name: str) -> bool:
    value = fields[name]
    if not isinstance(value, bool):
        message = f"{name} is not true or false"
        raise TypeError(message)
    return value
