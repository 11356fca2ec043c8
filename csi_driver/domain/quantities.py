# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write and read them."""

from __future__ import annotations

import re
from typing import Final

from csi_driver.domain.errors import InvalidRequestError

_QUANTITY: Final = re.compile(r"([0-9]{1,19})(|Ki|Mi|Gi|Ti|Pi)")
_UNITS: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
_STEP: Final = 1024


def parse_size(text: str) -> int:
    """Return bytes from `10737418240` or `10Gi`; InvalidRequestError otherwise."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        message = (
            f"{text!r} is not a size: give bytes, or a whole number of"
            f" {', '.join(_UNITS[1:])}"
        )
        raise InvalidRequestError(message)
    return int(match.group(1)) << 10 * _UNITS.index(match.group(2))


def show_size(count: int) -> str:
    """Return bytes in the unit that gives the shortest number, `1.5 GiB`."""
    value, step = float(count), 0
    while value >= _STEP and step < len(_UNITS) - 1:
        value, step = value / _STEP, step + 1
    number = f"{value:.1f}".removesuffix(".0")
    return f"{number} {_UNITS[step]}B"
