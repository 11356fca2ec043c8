# SPDX-License-Identifier: Apache-2.0
"""What several answers have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from csi_driver.domain import json_fields as read

type Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeNames:
    """A volume's id and its name, and the image that it is."""

    volume_id: str
    name: str
    cluster: str
    pool: str
    namespace: str
    image: str

    @property
    def path(self) -> str:
        """Pool, RADOS namespace and image, as rbd(8) writes them."""
        return image_path(self.pool, self.namespace, self.image)

    @classmethod
    def of(cls, fields: Json) -> VolumeNames:
        """Read them."""
        return cls(
            volume_id=read.string(fields, "id"),
            name=read.string(fields, "name"),
            cluster=read.string(fields, "cluster"),
            pool=read.string(fields, "pool"),
            namespace=read.string(fields, "namespace"),
            image=read.string(fields, "image"),
        )


def image_path(pool: str, namespace: str, image: str) -> str:
    """Return pool, RADOS namespace and image, as rbd(8) writes them."""
    return f"{pool}/{namespace}".rstrip("/") + f"/{image}"


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


def findings(fields: Json) -> tuple[Finding, ...]:
    """Read the findings of one volume."""
    return tuple(Finding.of(each) for each in read.objects(fields, "findings"))


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


def text_or_null(fields: Json, name: str) -> str:
    """Return a field that has to be a string or null, "" for null."""
    return "" if fields[name] is None else read.string(fields, name)


def answered(answer: Any) -> list[Json]:
    """Read an answer that has to be a list of objects."""
    return read.objects({"answer": answer}, "answer")
