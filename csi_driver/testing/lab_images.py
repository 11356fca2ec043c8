# SPDX-License-Identifier: Apache-2.0
"""Images on the lab's Ceph for tests of the datapath.

Made with python-rbd and cryptsetup, not with the driver's own `images`, so that
the datapath is tested against images that somebody else made.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import Final

from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.secrets import SecretBytes
from csi_driver.nbd.librbd_connection import CephClient
from csi_driver.nbd.librbd_image import ImageTarget

MIB: Final = 1024 * 1024
HEADER: Final = 16 * MIB
USER: Final = "rbdcrypt"
POOL: Final = os.environ.get("CEPH_POOL", "rbd")


class LabImages:
    """One pool of the lab's cluster as an administrator sees it."""

    def __init__(self, pool: str = POOL) -> None:
        conf = os.environ.get("CEPH_CONF")
        if not conf:
            message = (
                "CEPH_CONF is not set: start the lab with `hack/lab up` and run"
                " inside it, `hack/lab exec pytest …`"
            )
            raise AssertionError(message)
        import rados  # noqa: PLC0415  # only inside the lab
        import rbd  # noqa: PLC0415

        self._rbd = rbd
        self._cluster = rados.Rados(conffile=conf)
        self._cluster.connect(timeout=20)
        self.pool = pool
        self.ioctx = self._cluster.open_ioctx(pool)
        self.monitors = self._cluster.conf_get("mon_host")

    def close(self) -> None:
        """Disconnect."""
        self.ioctx.close()
        self._cluster.shutdown()

    @contextlib.contextmanager
    def own_pool(self) -> Iterator[LabImages]:
        """Make a pool that nobody else uses; only client.admin may, too."""
        name = f"nbd-test-{secrets.token_hex(6)}"
        self._cluster.create_pool(name)
        try:
            pool = LabImages(name)
            try:
                self._rbd.RBD().pool_init(pool.ioctx, True)
                yield pool
            finally:
                pool.close()
        finally:
            self._cluster.delete_pool(name)

    def set_pool_option(self, name: str, value: str) -> None:
        """Set an RBD option for every image of the pool."""
        self._rbd.RBD().pool_metadata_set(self.ioctx, f"conf_{name}", value)

    def client(self, user: str = USER, **settings: str) -> CephClient:
        """Return the credentials of a Ceph user."""
        command = {"prefix": "auth print-key", "entity": f"client.{user}"}
        status, key, problem = self._cluster.mon_command(json.dumps(command), b"")
        assert status == 0, problem
        return CephClient(self.monitors, user, SecretBytes(key.strip()), settings)

    @contextlib.contextmanager
    def image(
        self,
        size: int,
        passphrase: bytes | None = None,
        *,
        read_only: bool = False,
        **options: Any,
    ) -> Iterator[ImageTarget]:
        """Make an image of `size` effective bytes; removed at the end.

        Encrypted with LUKS2 and a cheap KDF if a passphrase is given.
        `read_only` is how the target says to open it; `options` go to librbd.
        """
        name = f"nbd-test-{secrets.token_hex(6)}"
        header = HEADER if passphrase is not None else 0
        self._rbd.RBD().create(
            self.ioctx, name, size + header, old_format=False, **options
        )
        try:
            with self._rbd.Image(self.ioctx, name) as image:
                if passphrase is not None:
                    image.write(luks2_header(passphrase), 0)
                image_id = image.id()
            yield ImageTarget(self.pool, name, image_id, read_only=read_only)
        finally:
            self._rbd.RBD().remove(self.ioctx, name)

    def raw(self, target: ImageTarget, **options: Any) -> Any:
        """Open an image raw, by python-rbd; the caller closes it."""
        return self._rbd.Image(self.ioctx, target.name, **options)

    def contents(self, target: ImageTarget, passphrase: bytes | None) -> bytes:
        """Read the whole image through python-rbd."""
        with self.raw(target, read_only=True) as image:
            if passphrase is not None:
                luks = self._rbd.RBD_ENCRYPTION_FORMAT_LUKS
                image.encryption_load2(((luks, passphrase),))
            size = image.size()
            return b"".join(
                image.read(offset, min(MIB, size - offset))
                for offset in range(0, size, MIB)
            )

    def blocklist(self, address: str) -> None:
        """Fence a client by its address; it can write nothing afterwards.

        The OSD may have the new map a moment later than the monitor.  It gets
        it with our next operation, because our client has waited for it.
        """
        self._cluster.blocklist_add(address, 60)
        self._cluster.wait_for_latest_osdmap()
        self.ioctx.write_full("nbd-test-fence", b"")
        self.ioctx.remove_object("nbd-test-fence")

    def fence(self, target: ImageTarget) -> None:
        """Fence everybody who has the image open."""
        with self.raw(target, read_only=True) as image:
            watchers = [each["addr"] for each in image.watchers_list()]
        for address in watchers:
            self.blocklist(address)


@functools.cache
def luks2_header(passphrase: bytes) -> bytes:
    """Return the start of a LUKS2 header with a cheap KDF.

    The first 288 KiB are all that librbd reads of a flat image's header when
    the first key slot opens (measured on 18.2.7).
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        file = Path(folder) / "header"
        with file.open("wb") as stream:
            stream.truncate(HEADER + 16 * MIB)
        command = [
            *("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2"),
            *("--sector-size", "4096", "--offset", str(HEADER // 512)),
            *("--cipher", "aes-xts-plain64", "--key-size", "512"),
            *("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"),
            *("--key-file", "-", str(file)),
        ]
        subprocess.run(command, input=passphrase, check=True)
        with file.open("rb") as stream:
            return stream.read(288 * 1024)


def load_specs(*passphrases: bytes) -> LoadSpecs:
    """Return load specs, own layer first."""
    return LoadSpecs(tuple(LayerSpec(SecretBytes(each)) for each in passphrases))
