# SPDX-License-Identifier: Apache-2.0
"""What the driver's commands answer, as far as the plugin needs it.

Each reader takes the JSON of one command and raises KeyError for a field that is
not there and TypeError for one of another type.  Fields that it does not know are
left alone: a newer driver may have more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from csi_driver.domain import json_fields as read

type Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `volume check` found."""

    code: str
    wrong: bool
    meaning: str
    remedy: str

    @classmethod
    def of(cls, fields: Json) -> Finding:
        """Read one."""
        return cls(
            code=read.string(fields, "code"),
            wrong=read.truth(fields, "wrong"),
            meaning=read.string(fields, "meaning"),
            remedy=read.string(fields, "remedy"),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class FlattenProgress:
    """A flatten under way, in objects."""

    done: int
    total: int

    @classmethod
    def of(cls, fields: Json | None) -> FlattenProgress | None:
        """Read one, or null."""
        if fields is None:
            return None
        return cls(read.natural(fields, "done"), read.natural(fields, "total"))


@dataclasses.dataclass(frozen=True, slots=True)
class ListedVolume:
    """One volume of `volume list`; `problem` stands where its record is amiss.

    `state` is "" then, unless the volume is only being made.
    """

    volume_id: str
    name: str
    cluster: str
    pool: str
    namespace: str
    image: str
    problem: str
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
        known = cls(
            volume_id=read.string(fields, "id"),
            name=read.string(fields, "name"),
            cluster=read.string(fields, "cluster"),
            pool=read.string(fields, "pool"),
            namespace=read.string(fields, "namespace"),
            image=read.string(fields, "image"),
            problem=read.string(fields, "problem") if "problem" in fields else "",
            state=read.string(fields, "state") if "state" in fields else "",
        )
        if known.problem:
            return known
        return dataclasses.replace(
            known,
            size=read.natural(fields, "bytes"),
            mode=read.string(fields, "mode"),
            fingerprint=text_or_null(fields, "fingerprint"),
            depth=read.natural(fields, "ancestors"),
            nodes=read.strings(fields, "nodes"),
            flatten=FlattenProgress.of(read.optional(fields, "flatten")),
        )


def listed(answer: Any) -> list[ListedVolume]:
    """Read `volume list`."""
    return [ListedVolume.of(each) for each in _objects(answer)]


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
    return [CheckedVolume.of(each) for each in _objects(answer)]


def findings(fields: Json) -> tuple[Finding, ...]:
    """Read the findings of one volume."""
    return tuple(Finding.of(each) for each in read.objects(fields, "findings"))


def text_or_null(fields: Json, name: str) -> str:
    """Return a field that has to be a string or null, "" for null."""
    return "" if fields[name] is None else read.string(fields, name)


def _objects(answer: Any) -> list[Json]:
    return read.objects({"answer": answer}, "answer")
