# SPDX-License-Identifier: Apache-2.0
"""What `volume check` answers."""

from __future__ import annotations

import dataclasses
from typing import Any

from csi_driver.domain import json_fields as read
from csi_driver.plugin.answers.parts import Finding
from csi_driver.plugin.answers.parts import Json
from csi_driver.plugin.answers.parts import answered
from csi_driver.plugin.answers.parts import findings


@dataclasses.dataclass(frozen=True, slots=True)
class CheckedVolume:
    """One volume of `volume check`."""

    volume_id: str
    name: str
    ok: bool
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, fields: Json) -> CheckedVolume:
        """Read one."""
        return cls(
            volume_id=read.string(fields, "id"),
            name=read.string(fields, "name"),
            ok=read.truth(fields, "ok"),
            findings=findings(fields),
        )


def checked(answer: Any) -> list[CheckedVolume]:
    """Read `volume check`."""
    return [CheckedVolume.of(each) for each in answered(answer)]
