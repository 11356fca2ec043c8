# SPDX-License-Identifier: Apache-2.0
"""One thing that an inspection found."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What was found, under a lasting code, and what can be done or saved.

    Not `wrong` is what passes by itself or harms nobody.
    """

    code: str
    meaning: str
    remedy: str
    wrong: bool = dataclasses.field(default=True, kw_only=True)
