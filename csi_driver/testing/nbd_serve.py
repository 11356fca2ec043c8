# SPDX-License-Identifier: Apache-2.0
r"""Serve memory or a real image over NBD, for tests and measurements.

    python -m csi_driver.testing.nbd_serve --socket S --memory 1073741824
    python -m csi_driver.testing.nbd_serve --socket S --image POOL/NAME \
        --conf FILE --user U --key-file F (--passphrase-file F… | --plaintext)

Passphrase files are taken as they are, a trailing newline included, own layer
first.  Ends on SIGTERM or SIGINT after everything was answered.
"""

from __future__ import annotations

import argparse
import configparser
import signal
import sys
from pathlib import Path

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.secrets import SecretBytes
from csi_driver.nbd.backend import Backend
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.librbd_backend import LibrbdBackend
from csi_driver.nbd.librbd_connection import CephClient
from csi_driver.nbd.librbd_image import Encryption
from csi_driver.nbd.librbd_image import ImageTarget
from csi_driver.nbd.librbd_image import LibrbdImage
from csi_driver.nbd.librbd_image import Plaintext
from csi_driver.nbd.server import Server
from csi_driver.nbd.server import export_of
from csi_driver.testing.backends import MemoryBackend


def monitors_of(conf: Path) -> str:
    """Return mon_host of a ceph.conf."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(conf.read_text())
    options = {
        name.replace(" ", "_"): value for name, value in parser["global"].items()
    }
    return options["mon_host"]


def open_image(options: argparse.Namespace) -> LibrbdImage:
    """Open the image that the command line names, with its lock."""
    *places, name = options.image.split("/")
    client = CephClient(
        monitors=monitors_of(options.conf),
        user=options.user,
        key=SecretBytes(options.key_file.read_bytes().strip()),
        settings=dict(each.split("=", 1) for each in options.set),
    )
    target = ImageTarget(
        pool=places[0],
        namespace=places[1] if len(places) > 1 else "",
        name=name,
        read_only=options.read_only,
    )
    passphrases = [SecretBytes(file.read_bytes()) for file in options.passphrase_file]
    encryption: Encryption = Plaintext()
    if not options.plaintext:
        encryption = LoadSpecs(tuple(LayerSpec(each) for each in passphrases))
    image = LibrbdImage(client, target, encryption)
    for each in passphrases:
        each.wipe()
    if not options.read_only:
        image.acquire_lock()
    return image


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="nbd_serve", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--memory", type=int, metavar="BYTES")
    what.add_argument("--image", metavar="POOL[/NAMESPACE]/NAME")
    parser.add_argument("--conf", type=Path, default=Path("/etc/ceph/ceph.conf"))
    parser.add_argument("--user", default="admin")
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--passphrase-file", type=Path, action="append", default=[])
    parser.add_argument("--plaintext", action="store_true")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal asks to stop."""
    options = parse(arguments)
    backend: Backend[Operation]
    if options.memory is not None:
        backend = MemoryBackend(options.memory, read_only=options.read_only)
    else:
        backend = LibrbdBackend(open_image(options))
    server = Server(backend, export_of(backend))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.request_stop())
    server.listen(options.socket)
    try:
        server.run()
    finally:
        backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
