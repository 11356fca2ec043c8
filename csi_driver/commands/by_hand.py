# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi volume …`: names, flags and help; the work is in the neighbours.

As in `cli`, a command's libraries are loaded when it is called.
"""

from __future__ import annotations

from typing import Annotated

import typer

from csi_driver.commands.options import taking
from csi_driver.settings import ClusterSettings

volume = typer.Typer(
    help="Look at volumes, repair and take them over, by hand.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Volume = Annotated[str, typer.Argument(help="CSI id of the volume, or its name")]
_Cluster = Annotated[
    str | None, typer.Option(help="clusterID in which to look for the name")
]
_Pool = Annotated[str | None, typer.Option(help="pool in which to look for the name")]
_Namespace = Annotated[
    str | None, typer.Option(help="RADOS namespace in which to look for the name")
]
_SecretFile = Annotated[
    str,
    typer.Option(
        help="the volume's Secret as JSON or YAML, - for stdin", metavar="FILE"
    ),
]
_Secret = Annotated[
    str,
    typer.Option(
        help="the volume's Secret, read from Kubernetes", metavar="NAMESPACE/NAME"
    ),
]
_Output = Annotated[str, typer.Option(help="table or json", metavar="FORMAT")]


@volume.command("list")
@taking(ClusterSettings)
def list_volumes(
    settings: ClusterSettings,
    *,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="tombstones instead of volumes")
    ] = False,
    output: _Output = "table",
) -> None:
    """List the volumes of all configured pools."""
    from csi_driver.commands import volumes as command
    from csi_driver.commands.output import parse_output

    command.list_volumes(settings, parse_output(output), deleted=deleted)


@volume.command("show")
@taking(ClusterSettings)
def show_volume(
    settings: ClusterSettings,
    *,
    volume: _Volume,
    cluster: _Cluster = None,
    pool: _Pool = None,
    namespace: _Namespace = None,
    output: _Output = "table",
) -> None:
    """Show one volume: its chain, snapshots, clones, users, sizes; never keys."""
    from csi_driver.commands import showing as command
    from csi_driver.commands.choosing import Named
    from csi_driver.commands.output import parse_output

    named = Named(volume, cluster, pool, namespace)
    command.show_volume(settings, parse_output(output), named)


@volume.command("check")
@taking(ClusterSettings)
def check_volume(
    settings: ClusterSettings,
    *,
    volumes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VOLUME]...", help="CSI ids of volumes, or names"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="check all volumes")] = False,
    cluster: _Cluster = None,
    pool: _Pool = None,
    namespace: _Namespace = None,
    secret_file: _SecretFile = "",
    secret: _Secret = "",
    output: _Output = "table",
) -> None:
    """Say what is wrong with volumes and what can be saved.

    The exit status is 1 if something is.  With the Secret of one volume that one
    and its snapshots are loaded, too.
    """
    from csi_driver.commands import checking as command
    from csi_driver.commands.choosing import Named
    from csi_driver.commands.choosing import SecretSource
    from csi_driver.commands.output import parse_output
    from csi_driver.domain.errors import InvalidRequestError

    if bool(volumes) == every:
        message = "give ids or names of volumes, or --all"
        raise InvalidRequestError(message)
    named = [Named(each, cluster, pool, namespace) for each in volumes or ()]
    source = SecretSource(secret_file, secret)
    if not command.check(settings, parse_output(output), named=named, secret=source):
        raise typer.Exit(1)


@volume.command("flatten")
@taking(ClusterSettings)
def flatten_volume(
    settings: ClusterSettings,
    *,
    volume: _Volume,
    cluster: _Cluster = None,
    pool: _Pool = None,
    namespace: _Namespace = None,
    secret_file: _SecretFile = "",
    secret: _Secret = "",
    attended: Annotated[
        bool,
        typer.Option(
            "--attended",
            help="for programs: stdin is one line, the Secret if --secret-file is -,"
            " and its end is Ctrl-C; stdout is JSON lines with the progress",
        ),
    ] = False,
    output: _Output = "table",
) -> None:
    """Copy what a clone reads from its parent, so that it needs none any more.

    Only while no node has the volume; a stage that wants it is let in.  It can
    be repeated after any interruption.
    """
    from csi_driver.commands import maintaining as command
    from csi_driver.commands.choosing import Named
    from csi_driver.commands.choosing import SecretSource
    from csi_driver.commands.output import parse_output
    from csi_driver.domain.errors import InvalidRequestError

    named = Named(volume, cluster, pool, namespace)
    if not attended:
        source = SecretSource(secret_file, secret)
        command.flatten(settings, parse_output(output), named, source)
        return
    if secret or secret_file not in {"", "-"}:
        message = "--attended takes a Secret from stdin alone: --secret-file -"
        raise InvalidRequestError(message)
    command.flatten_attended(settings, named, with_secret=bool(secret_file))


@volume.command("shrink")
@taking(ClusterSettings)
def shrink_volume(
    settings: ClusterSettings,
    *,
    volume: _Volume,
    size: Annotated[
        str, typer.Option(help="the new size in bytes, or as 10Gi", metavar="SIZE")
    ],
    vouched: Annotated[
        bool,
        typer.Option(
            "--content-ends-before-size",
            help="vouch for content whose size the driver does not know",
        ),
    ] = False,
    cluster: _Cluster = None,
    pool: _Pool = None,
    namespace: _Namespace = None,
    secret_file: _SecretFile = "",
    secret: _Secret = "",
    output: _Output = "table",
) -> None:
    """Take bytes off a volume's end; never below its filesystem.

    Only while no node has the volume.  What lies behind the new size is gone
    from the volume, and stays in its snapshots.
    """
    from csi_driver.commands import maintaining as command
    from csi_driver.commands.choosing import Named
    from csi_driver.commands.choosing import SecretSource
    from csi_driver.commands.output import parse_output
    from csi_driver.domain.quantities import parse_size
    from csi_driver.domain.sizes import EffectiveSize
    from csi_driver.provisioning.shrinking import Shrink

    command.shrink_volume(
        settings,
        parse_output(output),
        Named(volume, cluster, pool, namespace),
        SecretSource(secret_file, secret),
        Shrink(EffectiveSize(parse_size(size)), vouched),
    )


@volume.command("collect")
@taking(ClusterSettings)
def collect_tombstones(
    settings: ClusterSettings,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would become of each")
    ] = False,
    output: _Output = "table",
) -> None:
    """Remove deleted volumes that nothing depends on, once in all pools."""
    from csi_driver.commands import maintaining as command
    from csi_driver.commands.output import parse_output

    command.collect(settings, parse_output(output), dry_run=dry_run)


@volume.command("adopt")
@taking(ClusterSettings)
def adopt_image(
    settings: ClusterSettings,
    *,
    image: Annotated[str, typer.Argument(help="name of the image")],
    cluster: Annotated[str, typer.Option(help="its clusterID")],
    pool: Annotated[str, typer.Option(help="its pool")],
    namespace: Annotated[str, typer.Option(help="its RADOS namespace")] = "",
    name: Annotated[str, typer.Option(help="the volume's name, if another")] = "",
    secret: Annotated[
        str,
        typer.Option(help="Secret with its passphrases", metavar="NAMESPACE/NAME"),
    ] = "",
    block: Annotated[
        bool,
        typer.Option("--block", help="a raw block volume, no filesystem"),
    ] = False,
) -> None:
    """Make a volume of an image that others made; print its PersistentVolume."""
    from csi_driver.commands import adopting as command

    asked = command.Adoption(image_name=image, name=name, block=block)
    print(
        command.adopt_image(
            settings,
            cluster=cluster,
            pool=pool,
            namespace=namespace,
            asked=asked,
            secret=secret,
        ),
    )
