# SPDX-License-Identifier: Apache-2.0
"""Export entries of the record: which node serves the volume, as which client."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from collections.abc import Mapping
from typing import Any
from typing import Self

from csi_driver.domain import json_fields as read


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

    def to_json_object(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "node": self.node_id,
            "boot": self.boot_id,
            "client": self.client_address,
            "readOnly": self.read_only,
            "watcher": self.watcher_address,
        }

    @classmethod
    def from_json_object(cls, fields: Mapping[str, Any]) -> Self:
        """Read the JSON form; TypeError or LookupError if it is damaged."""
        return cls(
            node_id=read.string(fields, "node"),
            boot_id=read.string(fields, "boot"),
            client_address=read.string(fields, "client"),
            read_only=read.truth(fields, "readOnly"),
            watcher_address=read.string(fields, "watcher"),
        )
