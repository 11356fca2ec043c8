# SPDX-License-Identifier: Apache-2.0
"""The directory of a pool and namespace: names to images, and tombstones.

One RADOS object holds it.  Under `v.KEY`, KEY made from the volume's name, it
files the image that the name stands for; under `s.KEY` the snapshot of a name;
under `d.IMAGEID` the images that were deleted and wait to be collected, and
under `d.IMAGENAME` those that were never finished.  Every change is one guarded
operation, so a repeated call finds its own work and there is no journal.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Final

import structlog

from csi_driver.domain.errors import RecordError
from csi_driver.domain.ids import directory_key
from csi_driver.images.port import Pool

DIRECTORY: Final = "rbdcrypt.directory"

_log = structlog.get_logger(__name__)

ENTRY_VERSION: Final = 1

_VOLUMES: Final = "v."
_SNAPSHOTS: Final = "s."
_DELETED: Final = "d."


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What the directory says of one volume name.

    `image_id` is empty until the image is whole and has its record: until then
    only the call that claimed the name knows what stands behind it.  `source` is
    the CSI id of what a clone is made from: whoever takes away what was begun
    learns from it where the intent stands.
    """

    name: str
    image_name: str
    image_id: str = ""
    source: str = ""

    @property
    def key(self) -> str:
        """Where in the directory a volume of this name is filed."""
        return _VOLUMES + directory_key(self.name)

    def to_json(self) -> str:
        """Write the entry down; the same entry gives the same text."""
        return _text(self)

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """Read an entry; RecordError if it is damaged or of another version."""
        return _entry(cls, text)


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """What the directory says of one snapshot name.

    Enough to list it without reading its volume's record.  `number` is RBD's
    id, `size` exported bytes, `created` nanoseconds since 1970: all 0 until the
    snapshot is there and can be used.
    """

    name: str
    image_id: str
    number: int = 0
    size: int = 0
    created: int = 0

    @property
    def key(self) -> str:
        """Where in the directory a snapshot of this name is filed."""
        return _SNAPSHOTS + directory_key(self.name)

    def to_json(self) -> str:
        """Write the entry down; the same entry gives the same text."""
        return _text(self)

    @classmethod
    def from_json(cls, text: str) -> SnapshotEntry:
        """Read an entry; RecordError if it is damaged or of another version."""
        return _entry(cls, text)


class Directory:
    """The directory of one pool and namespace."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def find(self, name: str) -> Entry | None:
        """Return the entry of a volume name."""
        text = self._pool.read_entry(DIRECTORY, _VOLUMES + directory_key(name))
        return None if text is None else Entry.from_json(text)

    def find_snapshot(self, name: str) -> SnapshotEntry | None:
        """Return the entry of a snapshot name."""
        text = self._pool.read_entry(DIRECTORY, _SNAPSHOTS + directory_key(name))
        return None if text is None else SnapshotEntry.from_json(text)

    def claim(self, entry: Entry | SnapshotEntry) -> None:
        """File a name that nobody has; ConflictError if somebody does."""
        self._swap({entry.key: None}, put={entry.key: entry.to_json()})

    def replace[E: (Entry, SnapshotEntry)](self, old: E, new: E) -> None:
        """Change a name's entry; ConflictError if it is no longer `old`."""
        self._swap({old.key: old.to_json()}, put={new.key: new.to_json()})

    def forget_snapshot(self, entry: SnapshotEntry) -> None:
        """Free a snapshot's name; ConflictError if it stands for another by now."""
        self._swap({entry.key: entry.to_json()}, remove=(entry.key,))

    def bury(self, entry: Entry) -> None:
        """Move a volume to the deleted ones, which frees its name.

        An entry without image id is filed under the image's name.
        ConflictError if the volume's name stands for something else by now.
        """
        self._swap(
            {entry.key: entry.to_json()},
            put={_deleted(entry): entry.to_json()},
            remove=(entry.key,),
        )

    def forget(self, entry: Entry) -> None:
        """Remove a deleted image's entry; it is no error if it is gone."""
        self._swap({}, remove=(_deleted(entry),))

    def volumes(self, after: str, limit: int) -> list[tuple[str, Entry]]:
        """Page through the volumes: (page key, entry), in key order.

        `after` is the page key to go on behind, "" to begin with.
        """
        return self._page(_VOLUMES, Entry, after, limit)

    def snapshots(self, after: str, limit: int) -> list[tuple[str, SnapshotEntry]]:
        """Page through the snapshots, as `volumes` does."""
        return self._page(_SNAPSHOTS, SnapshotEntry, after, limit)

    def deleted(self, after: str, limit: int) -> list[tuple[str, Entry]]:
        """Page through the deleted images, as `volumes` does.

        Entries that cannot be read, damaged or of a later version, are logged
        and left out of all three: one of them must not hide all others.
        """
        return self._page(_DELETED, Entry, after, limit)

    def _page[E: (Entry, SnapshotEntry)](
        self, prefix: str, kind: type[E], after: str, limit: int
    ) -> list[tuple[str, E]]:
        last = prefix + after if after else ""
        found: list[tuple[str, E]] = []
        # An empty page means the end to callers, so go on behind bad entries.
        while not found and (
            rows := self._pool.read_entries(
                DIRECTORY, prefix=prefix, after=last, limit=limit
            )
        ):
            last = rows[-1][0]
            for key, text in rows:
                try:
                    found.append((key.removeprefix(prefix), _entry(kind, text)))
                except RecordError as error:
                    _log.warning("entry left out", key=key, error=str(error))
        return found

    def _swap(
        self,
        expect: Mapping[str, str | None],
        *,
        put: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> None:
        self._pool.swap_entries(DIRECTORY, expect=expect, put=put, remove=remove)


def _deleted(entry: Entry) -> str:
    return _DELETED + (entry.image_id or entry.image_name)


def _text(entry: Entry | SnapshotEntry) -> str:
    fields = {"version": ENTRY_VERSION, **dataclasses.asdict(entry)}
    if not fields.get("source", True):
        # Left out, so that it is spelt as before there was such a field: every
        # change compares the whole text.
        del fields["source"]
    return json.dumps(fields, sort_keys=True)


def _entry[E: (Entry, SnapshotEntry)](kind: type[E], text: str) -> E:
    try:
        fields = json.loads(text)
        version = fields.pop("version", None)
        if type(version) is int and version != ENTRY_VERSION:
            message = (
                f"an entry of {DIRECTORY} has version {version}, this driver"
                f" reads {ENTRY_VERSION}: use the driver version that wrote it"
            )
            raise RecordError(message)
        entry = kind(**fields)
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        message = f"an entry of {DIRECTORY} is damaged: {error}"
        raise RecordError(message) from error
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    if type(version) is not int or not all(
        type(getattr(entry, name)).__name__ == wanted for name, wanted in types.items()
    ):
        message = f"an entry of {DIRECTORY} is damaged: a field is of another type"
        raise RecordError(message)
    return entry
