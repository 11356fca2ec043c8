# SPDX-License-Identifier: Apache-2.0
"""How results are written: tables for people, documents for programs.

A document carries `apiVersion` and `kind`, as everything that kubectl prints;
docs/kubectl.md lists its fields.  Fields may be added; none changes its meaning
or goes while the version is this one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from collections.abc import Iterable
from typing import Final

import yaml
from rich.padding import Padding
from rich.table import Table

from csi_driver.commands import output

type Document = dict[str, object]
type Part = Table | Padding | str

API_VERSION: Final = "kubectl.rbdcrypt.io/v1"


class Form(enum.StrEnum):
    """What -o takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def document(kind: str, **fields: object) -> Document:
    """Return a document of a kind."""
    return {"apiVersion": API_VERSION, "kind": kind, **fields}


def write(
    form: Form,
    as_document: Callable[[], Document],
    as_table: Callable[[], Iterable[Part]],
) -> None:
    """Write a result to stdout in the form that was asked for."""
    match form:
        case Form.JSON:
            output.show_json(as_document())
        case Form.YAML:
            text = yaml.safe_dump(as_document(), sort_keys=False, allow_unicode=True)
            print(text, end="")
        case Form.TABLE:
            output.show(*as_table())


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Return a table of names and values, without those that are empty."""
    made = output.table("", "")
    made.show_header = False
    for name, value in rows:
        if value:
            output.add_row(made, name, value)
    return made
