# SPDX-License-Identifier: Apache-2.0
"""The command line: names, flags and help; what a command does is in `commands`.

Commands are imported when they are called: a controller that has to serve
within a second does not load what a node needs, and `version` loads nothing.
"""

from __future__ import annotations

import sys
from typing import Annotated
from typing import Final
from typing import NoReturn

import typer

from csi_driver.commands.by_hand import volume
from csi_driver.commands.options import taking
from csi_driver.domain.errors import DriverError
from csi_driver.settings import ControllerSettings
from csi_driver.settings import DatapathSettings
from csi_driver.settings import DoctorSettings
from csi_driver.settings import NodeSettings

_CEPH: Final = {"rados": "python3-rados", "rbd": "python3-rbd"}
"""Modules that no Python package index has."""

# No rich tracebacks: they show local variables, and those hold keys.
app = typer.Typer(
    help="Kubernetes CSI driver for Ceph RBD volumes encrypted by librbd.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(volume, name="volume")


@app.command()
@taking(ControllerSettings)
def controller(settings: ControllerSettings) -> None:
    """Serve Identity and Controller, and collect deleted volumes."""
    from csi_driver.commands import controller as command

    command.run(settings)


@app.command()
@taking(NodeSettings)
def node(settings: NodeSettings) -> None:
    """Serve Identity and Node."""
    from csi_driver.commands import node as command

    command.run(settings)


@app.command()
@taking(DatapathSettings)
def datapath(settings: DatapathSettings) -> None:
    """Open volumes and serve their I/O, for the node service."""
    from csi_driver.commands import datapath as command

    command.run(settings)


@app.command()
@taking(DoctorSettings)
def doctor(
    settings: DoctorSettings,
    *,
    role: Annotated[
        str,
        typer.Option(
            help="controller, node or datapath; found from the settings without it",
            metavar="ROLE",
        ),
    ] = "",
    write: Annotated[
        bool,
        typer.Option("--write", help="write one key in each pool, and remove it"),
    ] = False,
    output: Annotated[
        str, typer.Option(help="table or json", metavar="FORMAT")
    ] = "table",
) -> None:
    """Look at everything that the driver rests on here, and say what to do.

    The exit status is 1 if something failed.  Nothing is changed without --write.
    """
    from csi_driver.commands import doctoring as command
    from csi_driver.commands.output import parse_output

    command.run(settings, parse_output(output), role=role, write=write)


@app.command()
def version() -> None:
    """Print the version."""
    from csi_driver.commands import version as command

    print(command.version())


def main() -> None:
    """Run one command.  An expected failure is one line and exit status 1."""
    try:
        app()
    except DriverError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name not in _CEPH:
            raise
        _fail(
            f"Python has no module {error.name}: install {_CEPH[error.name]} from the"
            " distribution and let the environment see it",
        )


def _fail(text: str) -> NoReturn:
    print(f"rbdcrypt-csi: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(1)
