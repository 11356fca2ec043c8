# SPDX-License-Identifier: Apache-2.0
"""Names that users write, each with its meaning, for parsers and for the docs.

The page docs/parameters.md is made from these, so that a name is explained once,
beside the code that reads it.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """One name, what it means, and what counts where it is not written.

    `meaning` and `default` are Markdown without line breaks; `default` is
    `required` for a name that cannot be left out and "" where nothing counts.
    """

    name: str
    meaning: str
    default: str = ""


REQUIRED = "required"
