# SPDX-License-Identifier: Apache-2.0
"""The sub-commands of `hack/image`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

from labtools import shell

from imagetools import building
from imagetools import images
from imagetools import measuring

if TYPE_CHECKING:
    from collections.abc import Callable

_IMAGES: Final[dict[str, Callable[[], Path]]] = {
    "driver": images.ensure_driver_image,
    "next": images.ensure_successor_image,
    "workload": images.ensure_workload_image,
    "busybox": images.ensure_busybox_image,
    "nginx": images.ensure_nginx_image,
    "glibc-dns-testing": images.ensure_glibc_image,
}
"""Those that are made of nothing but packages and the clone."""


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hack/image", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make images, print their archives")
    build.add_argument(
        "names", nargs="*", default=["driver"], metavar="IMAGE", help=", ".join(_IMAGES)
    )
    save = commands.add_parser("save", help="copy an image's archive, made if needed")
    save.add_argument("name", choices=_IMAGES, metavar="IMAGE", help=", ".join(_IMAGES))
    save.add_argument("file", type=Path, help="for docker load, ctr images import, …")
    commands.add_parser("list", help="print the archives in the cache")
    commands.add_parser("measure", help="the driver's size and start, measured")
    options = parser.parse_args(words)
    if unknown := set(getattr(options, "names", ())) - set(_IMAGES):
        parser.error(
            f"no such image: {', '.join(sorted(unknown))}; there are"
            f" {', '.join(_IMAGES)}"
        )
    return options


def _list() -> None:
    for path in building.archives():
        print(f"{path.stat().st_size / 1_000_000:6.0f} MB  {path}")


def _measure() -> None:
    figures = measuring.measure()
    print(
        f"image: {figures.unpacked / 1_000_000:.0f} MB,"
        f" {figures.compressed / 1_000_000:.0f} MB compressed"
    )
    for command, seconds in figures.seconds.items():
        print(f"rbdcrypt-csi {command}: serves after {seconds:.2f} s")


def main() -> int:
    """Run one sub-command; return its exit status."""
    options = _arguments(sys.argv[1:])
    shell.stop_on_signals()
    try:
        if options.command == "build":
            for name in options.names:
                print(_IMAGES[name](), flush=True)
        elif options.command == "save":
            shutil.copyfile(_IMAGES[options.name](), options.file)
        elif options.command == "measure":
            _measure()
        else:
            _list()
    except (shell.LabError, OSError) as error:
        print(f"hack/image: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
