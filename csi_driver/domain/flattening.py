# SPDX-License-Identifier: Apache-2.0
"""When a clone is flattened, how deep chains may grow, and a flatten under way.

Flattening copies the parent's data into the clone, under the clone's own key.
It is safe through a loaded handle alone, in the process that owns the image's
lock; carrying it out is left to `datapath` and `provisioning`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any
from typing import Final
from typing import Self

from csi_driver.domain import json_fields as read
from csi_driver.domain.chain import DEEPEST_CHAIN
from csi_driver.domain.errors import PreconditionError

SOFT_DEPTH: Final = 4
"""Images below a clone from which on policy `depth` flattens it."""

HARD_DEPTH: Final = 12
"""Images below a clone beyond which policy `depth` makes none."""


class FlattenPolicy(enum.Enum):
    """The class parameter `flattenPolicy`."""

    NEVER = "never"
    DEPTH = "depth"
    ALWAYS = "always"

    def wants(self, ancestors: int) -> bool:
        """Tell whether a clone with so many images below it is to be flattened."""
        match self:
            case FlattenPolicy.NEVER:
                return False
            case FlattenPolicy.DEPTH:
                return ancestors >= SOFT_DEPTH
            case FlattenPolicy.ALWAYS:
                return ancestors > 0

    def require_possible(self, ancestors: int, source: str) -> None:
        """Refuse a clone that would lie too deep (PreconditionError)."""
        most = HARD_DEPTH if self is FlattenPolicy.DEPTH else DEEPEST_CHAIN - 1
        if ancestors > most:
            message = (
                f"a clone of {source} would have {ancestors} images below it,"
                f" flattenPolicy {self.value!r} allows {most}: flatten the source"
                " first (`rbdcrypt-csi volume flatten`), or clone one of its"
                " ancestors"
            )
            raise PreconditionError(message)


@dataclasses.dataclass(frozen=True, slots=True)
class FlattenWork:
    """A flatten under way, as the record tells others of it.

    `client_address` owns the lock; `done` of `total` are objects.  `cancel` is
    set by a stage that wants the volume: a command lets go then.
    """

    client_address: str
    done: int = 0
    total: int = 0
    cancel: bool = False

    def to_json_object(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "client": self.client_address,
            "done": self.done,
            "total": self.total,
            "cancel": self.cancel,
        }

    @classmethod
    def from_json_object(cls, fields: Mapping[str, Any]) -> Self:
        """Read the JSON form; TypeError, ValueError or LookupError if damaged."""
        return cls(
            client_address=read.string(fields, "client"),
            done=read.natural(fields, "done"),
            total=read.natural(fields, "total"),
            cancel=read.truth(fields, "cancel"),
        )
