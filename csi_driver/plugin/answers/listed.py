# SPDX-License-Identifier: Apache-2.0
"""What `volume list` answers."""

from __future__ import annotations

import dataclasses
from typing import Any

from csi_driver.domain import json_fields as read
from csi_driver.plugin.answers.parts import FlattenProgress
from csi_driver.plugin.answers.parts import Json
from csi_driver.plugin.answers.parts import VolumeNames
from csi_driver.plugin.answers.parts import answered
from csi_driver.plugin.answers.parts import text_or_null


@dataclasses.dataclass(frozen=True, slots=True)
class ListedVolume:
    """One volume of `volume list`; `problem` stands where its record is amiss.

    `state` is "" then, unless the volume is only being made.  `outlook` says what
    becomes of one that was begun and not finished.
    """

    names: VolumeNames
    outlook: str
    problem: str = ""
    size: int = 0
    state: str = ""
    mode: str = ""
    fingerprint: str = ""
    depth: int = 0
    nodes: tuple[str, ...] = ()
    flatten: FlattenProgress | None = None

    @classmethod
    def of(cls, fields: Json) -> ListedVolume:
        """Read one."""
        names = VolumeNames.of(fields)
        outlook = text_or_null(fields, "outlook")
        if "problem" in fields:
            problem = read.string(fields, "problem")
            state = read.string(fields, "state") if "state" in fields else ""
            return cls(names, outlook, problem, state=state)
        return cls(
            names,
            outlook,
            size=read.natural(fields, "bytes"),
            state=read.string(fields, "state"),
            mode=read.string(fields, "mode"),
            fingerprint=text_or_null(fields, "fingerprint"),
            depth=read.natural(fields, "ancestors"),
            nodes=read.strings(fields, "nodes"),
            flatten=FlattenProgress.of(read.optional(fields, "flatten")),
        )


def listed(answer: Any) -> list[ListedVolume]:
    """Read `volume list`."""
    return [ListedVolume.of(each) for each in answered(answer)]
