# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt …`: names, flags and help; the work is in the neighbours.

The exit status is 0, 1 for every expected failure and for a check that finds
something wrong, 2 for wrong usage, and 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import Annotated
from typing import Final
from typing import NoReturn

import typer

from csi_driver.commands import output
from csi_driver.commands.version import version as installed_version
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import DriverError
from csi_driver.plugin import checking
from csi_driver.plugin import doctoring
from csi_driver.plugin import flattening
from csi_driver.plugin import gathering
from csi_driver.plugin import listing
from csi_driver.plugin import showing
from csi_driver.plugin import shown_document
from csi_driver.plugin.claims import checked_id
from csi_driver.plugin.options import Options
from csi_driver.plugin.options import claim_name
from csi_driver.plugin.options import with_options
from csi_driver.plugin.printing import document
from csi_driver.plugin.printing import write

_FAILED: Final = 1
_INTERRUPTED: Final = 130
_EVERYWHERE: Final = "*"

# No rich tracebacks: they show local variables, and those may hold a Secret.
app = typer.Typer(
    name="kubectl rbdcrypt",
    help="Look at volumes of rbdcrypt-csi and work on them, by their claims.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Claim = Annotated[
    str,
    typer.Argument(
        metavar="PVC",
        help="name of a PersistentVolumeClaim",
        callback=claim_name,
    ),
]
_All = Annotated[
    bool,
    typer.Option(
        "--all-namespaces",
        "-A",
        help="claims of all namespaces, and volumes that no claim has",
    ),
]


@app.command("list")
@with_options
def list_volumes(options: Options, *, all_namespaces: _All = False) -> None:
    """List claims with size, encryption, key fingerprint, clone depth and node."""
    namespace = _scope(options, all_namespaces)
    driver = options.driver()
    found, listed = gathering.listing(driver, namespace)
    rows = listing.join(found.claims, found.volumes, listed, driver.name)
    rest = listing.unclaimed(rows, found.volumes, listed) if all_namespaces else []
    write(
        options.output,
        lambda: listing.as_document([*rows, *rest]),
        lambda: listing.as_tables(rows, rest, everywhere=all_namespaces),
    )


@app.command("show")
@with_options
def show_volume(options: Options, *, claim: _Claim) -> None:
    """Show a claim's volume: layers, key, sizes, snapshots, nodes, pods, health."""
    family = gathering.family(options.driver(), claim, options.chosen_namespace)
    write(
        options.output,
        lambda: shown_document.as_document(family),
        lambda: showing.as_tables(family),
    )


@app.command("check")
@with_options
def check_volumes(
    options: Options,
    *,
    claim: Annotated[
        str, typer.Argument(metavar="[PVC]", help="name of a PersistentVolumeClaim")
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="all claims of the namespace, or of all")
    ] = False,
    all_namespaces: _All = False,
) -> None:
    """Say what is wrong with a claim's volume; the exit status is 1 if something is."""
    if bool(claim) == every:
        message = "give the name of one PersistentVolumeClaim, or --all"
        raise typer.BadParameter(message)
    if claim and all_namespaces:
        message = "a claim has one namespace: give --namespace instead of -A"
        raise typer.BadParameter(message)
    namespace = _scope(options, all_namespaces)
    driver = options.driver()
    if claim:
        name, persistent, _ = gathering.one_volume(driver, claim_name(claim), namespace)
        results = checking.check_one(driver, name.name, persistent)
    else:
        found = gathering.inventory(driver, namespace)
        results = checking.check_all(driver, found, everything=all_namespaces)
    write(
        options.output,
        lambda: checking.as_document(results),
        lambda: checking.as_lines(results),
    )
    if not all(each.ok for each in results):
        raise typer.Exit(_FAILED)


@app.command("flatten")
@with_options
def flatten_volume(options: Options, *, claim: _Claim) -> None:
    """Copy what a clone reads from its parent, so that it needs none any more.

    Only while no pod uses the claim.  Its Secret is read with your own rights
    and handed to the driver by stdin.  Ctrl-C lets go of the volume; the same
    command goes on with what is left.
    """
    driver = options.driver()
    found, persistent, _ = gathering.one_volume(driver, claim, options.chosen_namespace)
    volume_id = checked_id(persistent)
    secret = flattening.secret_line(driver.kubectl, persistent.secret)
    with output.progress(f"flattening {found.name}") as progress:
        depth = flattening.flatten(driver, volume_id, secret, progress)
    name = found.name
    write(
        options.output,
        lambda: document(
            "FlattenResult",
            namespace=name.namespace,
            claim=name.name,
            volumeID=volume_id,
            depth=depth,
        ),
        lambda: [f"{name}: flattened; it has no parent any more"],
    )


@app.command()
@with_options
def doctor(
    options: Options,
    *,
    node: Annotated[
        str, typer.Option(metavar="NODE", help="look at this node's pods only")
    ] = "",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="show what is in order, too")
    ] = False,
) -> None:
    """Look at everything that the driver rests on, in its pods and from outside.

    The exit status is 1 if something failed.
    """
    found = doctoring.diagnose(
        options.kubectl, options.driver_namespace, options.release, node
    )
    write(
        options.output,
        lambda: doctoring.as_document(found),
        lambda: doctoring.as_lines(found, everything=verbose),
    )
    if not found.ok:
        raise typer.Exit(_FAILED)


@app.command()
def version() -> None:
    """Print the version of this plugin."""
    print(installed_version())


def main() -> None:
    """Run one command.  An expected failure is one line on stderr."""
    try:
        app()
    except CancelledError as error:
        _end(str(error), _INTERRUPTED)
    except DriverError as error:
        _end(str(error), _FAILED)


def _scope(options: Options, all_namespaces: bool) -> str | None:
    if all_namespaces and options.namespace:
        message = "give --namespace or --all-namespaces, not both"
        raise typer.BadParameter(message)
    return _EVERYWHERE if all_namespaces else options.chosen_namespace


def _end(text: str, status: int) -> NoReturn:
    print(f"error: {output.clean(' '.join(text.split()))}", file=sys.stderr)
    sys.exit(status)
