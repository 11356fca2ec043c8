# SPDX-License-Identifier: Apache-2.0
"""The driver as its next version may be, for tests of rolling upgrades.

It is the clone with another version of what node service and datapath say to each
other: one higher, with a field more in a message that is sent all the time.  That
the rest is the same is what makes a test's result speak of the versions alone.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

from labtools import shell

if TYPE_CHECKING:
    from collections.abc import Iterable

MESSAGES: Final = Path("csi_driver/datapath/messages.py")
_FIELD: Final = (
    "    thorough: bool = dataclasses.field(default=True, metadata=codec.added({1}))"
)
_CHANGES: Final = (
    (r"^VERSION: Final = {0}$", "VERSION: Final = {1}"),
    # As the real one will: it speaks its own version and the one before.
    (r"^MIN_VERSION: Final = \d+$", "MIN_VERSION: Final = {0}"),
    (
        r"^(class Status:\n(?:.*\n)*?    volume_id: VolumeId \| None)$",
        rf"\g<1>\n{_FIELD}",
    ),
)
"""Patterns and what comes instead; {0} is the version of now, {1} the next."""


def write(context: Path, files: Iterable[Path], target: Path) -> tuple[Path, ...]:
    """Copy files below `context` to below `target`, one version on; return them.

    LabError if the messages do not look as expected.
    """
    copies = []
    for path in files:
        copy = target / path.relative_to(context)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copies.append(copy)
    messages = target / MESSAGES
    messages.write_text(one_version_on(messages.read_text()))
    return tuple(copies)


def one_version_on(text: str) -> str:
    """Return the text of `MESSAGES` of the next version; LabError if it cannot be."""
    found = re.search(r"^VERSION: Final = (\d+)$", text, re.MULTILINE)
    if found is None:
        raise shell.LabError(f"{MESSAGES} names no VERSION")
    now = int(found[1])
    for pattern, replacement in _CHANGES:
        text, count = re.subn(
            pattern.replace("{0}", str(now)),
            replacement.format(now, now + 1),
            text,
            flags=re.MULTILINE,
        )
        if count != 1:
            raise shell.LabError(f"{MESSAGES}: {count} places look like {pattern}")
    return text
