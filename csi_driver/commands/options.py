# SPDX-License-Identifier: Apache-2.0
"""Turn settings into flags, so that each of them is written down once."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any
from typing import Concatenate

import typer

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.settings import Settings
from csi_driver.settings import load
from csi_driver.settings import variable

USAGE: int = 2
"""Exit status for wrong settings, as for wrong flags."""


def taking[S: Settings, **P](
    kind: type[S],
) -> Callable[[Callable[Concatenate[S, P], None]], Callable[..., None]]:
    """Give a command the flags of a kind of settings.

    The command gets the settings as its first argument.  A wrong setting is
    one line on stderr and exit status 2.
    """

    def decorate(command: Callable[Concatenate[S, P], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            flags = {name: given.pop(name) for name in kind.model_fields}
            try:
                settings = load(kind, flags)
            except InvalidRequestError as error:
                print(f"rbdcrypt-csi: {error}", file=sys.stderr)
                raise typer.Exit(USAGE) from None
            command(settings, **given)  # type: ignore[call-arg]  # own parameters

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        parameters = [*own, *_flags(kind)]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by typer
        wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapper

    return decorate


def _flags(kind: type[Settings]) -> list[inspect.Parameter]:
    """Return a keyword parameter for each setting; None where it is not given."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Option(
                None,
                f"--{name.replace('_', '-')}",
                help=f"{field.description} ({variable(name)})",
                metavar=name.rpartition("_")[2].upper(),
                show_default=False,
            ),
            annotation=str | None,
        )
        for name, field in kind.model_fields.items()
    ]
