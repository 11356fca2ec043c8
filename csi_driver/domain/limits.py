# SPDX-License-Identifier: Apache-2.0
"""I/O limits of a volume: the mutable parameters of a VolumeAttributesClass.

librbd keeps them in image metadata and obeys a change within a second, also on
an image that is open elsewhere (measured on 18.2.7).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any
from typing import Final
from typing import Self

from csi_driver.domain import json_fields as read
from csi_driver.domain.described import Described
from csi_driver.domain.errors import InvalidRequestError

IOPS: Final = "iops"
BANDWIDTH: Final = "bandwidth"
PARAMETERS: Final = (
    Described(IOPS, "operations per second; 0 is no limit", "0"),
    Described(
        BANDWIDTH,
        "bytes per second, as a number or as `100Mi`, `1G` and the like; 0 is no limit",
        "0",
    ),
)
KNOWN: Final = tuple(each.name for each in PARAMETERS)

LARGEST_LIMIT: Final = (1 << 63) - 1

IOPS_SETTING: Final = "rbd_qos_iops_limit"
BANDWIDTH_SETTING: Final = "rbd_qos_bps_limit"

_QUANTITY: Final = re.compile(r"([0-9]{1,19})(|k|M|G|T|Ki|Mi|Gi|Ti)")
_UNITS: Final = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}


@dataclasses.dataclass(frozen=True, slots=True)
class IoLimits:
    """Operations and bytes per second; 0 is no limit."""

    iops: int = 0
    bandwidth: int = 0

    def changed_by(self, given: Mapping[str, str]) -> IoLimits:
        """Return the limits with what a request changes.

        What it does not name stays.  InvalidRequestError if any part of it is
        not understood; then nothing of it counts.
        """
        unknown = sorted(set(given) - set(KNOWN))
        if unknown:
            message = (
                f"unknown mutable parameter {', '.join(map(repr, unknown))};"
                f" known are {', '.join(KNOWN)}"
            )
            raise InvalidRequestError(message)
        return IoLimits(
            iops=_count(given[IOPS]) if IOPS in given else self.iops,
            bandwidth=(
                _bytes(given[BANDWIDTH]) if BANDWIDTH in given else self.bandwidth
            ),
        )

    def settings(self) -> dict[str, str | None]:
        """Return librbd's settings by name; None removes one."""
        return {
            IOPS_SETTING: str(self.iops) if self.iops else None,
            BANDWIDTH_SETTING: str(self.bandwidth) if self.bandwidth else None,
        }

    def to_json_object(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {IOPS: self.iops, BANDWIDTH: self.bandwidth}

    @classmethod
    def from_json_object(cls, fields: Mapping[str, Any]) -> Self:
        """Read the JSON form; TypeError, ValueError or LookupError if damaged."""
        return cls(read.natural(fields, IOPS), read.natural(fields, BANDWIDTH))


NO_LIMITS: Final = IoLimits()


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > LARGEST_LIMIT:
        message = (
            f"mutable parameter {IOPS} has to be a whole number of operations per"
            f" second, 0 for no limit; {text!r} is not"
        )
        raise InvalidRequestError(message)
    return int(text)


def _bytes(text: str) -> int:
    match = _QUANTITY.fullmatch(text)
    value = int(match.group(1)) * _UNITS[match.group(2)] if match else -1
    if not 0 <= value <= LARGEST_LIMIT:
        message = (
            f"mutable parameter {BANDWIDTH} has to be bytes per second as a quantity"
            f" such as 104857600 or 100Mi, 0 for no limit; {text!r} is not"
        )
        raise InvalidRequestError(message)
    return value
