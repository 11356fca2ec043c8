# SPDX-License-Identifier: Apache-2.0
"""Writing results: tables, trees and progress for people, JSON for programs.

On a terminal there are colours and bars; elsewhere plain lines of any length, so
that nothing is cut that a program may look for.
"""

from __future__ import annotations

import contextlib
import enum
import json
import sys
from collections.abc import Callable
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.console import JustifyMethod
from rich.padding import Padding
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import SpinnerColumn
from rich.progress import TextColumn
from rich.progress import TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from csi_driver.domain.errors import InvalidRequestError

_ANY_WIDTH: Final = 100_000
"""Columns of what is no terminal."""

_STRANGE: Final = "\N{REPLACEMENT CHARACTER}"

NOTHING: Final = "-"
"""Stands in a table for what is not there."""


class Output(enum.StrEnum):
    """For people, or for programs."""

    TABLE = "table"
    JSON = "json"


def parse_output(text: str) -> Output:
    """Return a format by its name; InvalidRequestError lists the known ones."""
    try:
        return Output(text)
    except ValueError:
        message = f"--output {text!r} is not one of {', '.join(Output)}"
        raise InvalidRequestError(message) from None


def clean(text: str) -> str:
    """Return a text without characters that could steer a terminal.

    Names of images and snapshots are chosen by whoever may make one.
    """
    return "".join(each if each.isprintable() else _STRANGE for each in text)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table; the columns named in `right` hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for each in columns:
        side: JustifyMethod = "right" if each in right else "left"
        made.add_column(each, justify=side, overflow="fold")
    return made


def add_row(to: Table, *cells: str) -> None:
    """Add a row, its cells cleaned; an empty one is shown as such."""
    to.add_row(*(clean(each) or NOTHING for each in cells))


def indented(text: str, by: int) -> Padding:
    """Return a text that keeps its indentation, in columns, where it is wrapped."""
    return Padding(Text(clean(text)), (0, 0, 0, by), expand=False)


def show(*parts: Table | Tree | Padding | str) -> None:
    """Write tables, trees and lines to stdout."""
    console = _console(errors=False)
    for each in parts:
        console.print(clean(each) if isinstance(each, str) else each)


def show_json(value: object) -> None:
    """Write one JSON document to stdout."""
    print(json.dumps(value, indent=2))


def tell(sentence: str) -> None:
    """Say to a person what goes on; it is no part of the result."""
    print(clean(sentence), file=sys.stderr)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; the function yielded takes (done, total)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = _console(errors=True)
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(clean(what), total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        yield update


def _console(*, errors: bool) -> Console:
    stream = sys.stderr if errors else sys.stdout
    return Console(
        stderr=errors,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=not stream.isatty(),
        width=None if stream.isatty() else _ANY_WIDTH,
    )
