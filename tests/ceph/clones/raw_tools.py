# SPDX-License-Identifier: Apache-2.0
"""What others have: python-rbd, the rbd command, and RADOS itself.

Nothing of the driver is used here, so that its handles are judged, and images
are damaged, from outside.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any
from typing import Final

import rados
import rbd

from csi_driver.domain.secrets import SecretBytes

LUKS: Final = rbd.RBD_ENCRYPTION_FORMAT_LUKS


class RawTools:
    """One client of the cluster, an administrator's, in one namespace."""

    def __init__(self, conf: str, pool: str, namespace: str, **settings: str) -> None:
        """Connect; `settings` are the client's own of Ceph's options."""
        self._conf = conf
        self._arguments = (conf, pool, namespace)
        self._namespace = namespace
        self.cluster: Any = rados.Rados(
            conffile=conf, name="client.admin", conf=settings
        )
        self.cluster.connect(timeout=20)
        self.ioctx: Any = self.cluster.open_ioctx(pool)
        self.ioctx.set_namespace(namespace)
        self._whole: Any = self.cluster.open_ioctx(pool)
        self._pool = pool

    def another(self, **settings: str) -> RawTools:
        """Connect another client like this one."""
        return RawTools(*self._arguments, **settings)

    def close(self) -> None:
        """Disconnect."""
        self._whole.close()
        self.ioctx.close()
        self.cluster.shutdown()

    def make_namespace(self) -> None:
        """Make the namespace."""
        rbd.RBD().namespace_create(self._whole, self._namespace)

    def remove_namespace(self) -> None:
        """Remove the namespace with all that is in it."""
        for each in list(self.ioctx.list_objects()):
            with contextlib.suppress(rados.ObjectNotFound):
                self.ioctx.remove_object(each.key)
        rbd.RBD().namespace_remove(self._whole, self._namespace)

    def make(self, size: int) -> str:
        """Make an image of so many raw bytes; return its id."""
        name = f"foreign-{uuid.uuid4()}"
        rbd.RBD().create(self.ioctx, name, size, old_format=False)
        return self.id_of(name)

    def image(self, image_id: str, *, read_only: bool = False) -> Any:
        """Open an image raw; to be closed, or used in a `with`."""
        return rbd.Image(self.ioctx, image_id=image_id, read_only=read_only)

    @contextlib.contextmanager
    def loaded(
        self, image_id: str, *keys: SecretBytes, snapshot: int = 0
    ) -> Iterator[Any]:
        """Open an image, or a snapshot of it, and load it with these keys."""
        with self.image(image_id, read_only=bool(snapshot)) as image:
            if snapshot:
                image.set_snap_by_id(snapshot)
            image.encryption_load2(tuple((LUKS, each.reveal()) for each in keys))
            yield image

    def content(self, image_id: str, *keys: SecretBytes, snapshot: int = 0) -> bytes:
        """Return every byte that these keys show of an image or a snapshot."""
        with self.loaded(image_id, *keys, snapshot=snapshot) as image:
            return read_all(image)

    def path(self, image_id: str) -> str:
        """Return the image as the rbd command wants it."""
        with self.image(image_id, read_only=True) as image:
            return f"{self._pool}/{self._namespace}/{image.get_name()}"

    def command(self, *words: str) -> None:
        """Run the rbd command."""
        subprocess.run(self._rbd(*words), check=True, capture_output=True)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start the rbd command."""
        return subprocess.Popen(self._rbd(*words), stdout=subprocess.DEVNULL)

    def _rbd(self, *words: str) -> list[str]:
        return ["rbd", "--conf", self._conf, "--no-progress", *words]

    def health(self) -> str:
        """Return what `ceph health detail` says, as JSON."""
        command = {"prefix": "health", "detail": "detail", "format": "json"}
        return str(self.cluster.mon_command(json.dumps(command), b"")[1], "utf-8")

    def manager(self, **command: str) -> int:
        """Give the manager a command; return its status."""
        return int(self.cluster.mgr_command(json.dumps(command), b"")[0])

    def id_of(self, name: str) -> str:
        """Return the id of an image by its name."""
        with rbd.Image(self.ioctx, name, read_only=True) as image:
            return str(image.id())

    def has_parent(self, image_id: str) -> bool:
        """Tell whether an image is still a clone."""
        with self.image(image_id, read_only=True) as image:
            try:
                return bool(image.parent_info())
            except rbd.ImageNotFound:
                return False

    def raw_bytes(self, image_id: str) -> bytes:
        """Return the whole raw image, as `rbd export` does."""
        with self.image(image_id, read_only=True) as image:
            return read_all(image)

    def raw_bytes_at(self, image_id: str, at: int, length: int) -> bytes:
        """Return some bytes of the raw image."""
        with self.image(image_id, read_only=True) as image:
            return bytes(image.read(at, length))

    def objects(self, image_id: str) -> dict[int, int]:
        """Return the image's data objects in RADOS: number to bytes."""
        prefix = f"rbd_data.{image_id}."
        found = {}
        for each in self.ioctx.list_objects():
            # One that only a snapshot still has is listed, too.
            with contextlib.suppress(rados.ObjectNotFound):
                if each.key.startswith(prefix):
                    size = int(self.ioctx.stat(each.key)[0])
                    found[int(each.key.removeprefix(prefix), 16)] = size
        return found

    def object(self, image_id: str, number: int) -> bytes:
        """Return one data object, read through librados alone."""
        key = f"rbd_data.{image_id}.{number:016x}"
        size = int(self.ioctx.stat(key)[0])
        return bytes(self.ioctx.read(key, length=size, offset=0))

    def wait_for_object(self, image_id: str, number: int) -> None:
        """Wait until somebody has made a data object."""
        deadline = time.monotonic() + 30
        while number not in self.objects(image_id):
            assert time.monotonic() < deadline
            time.sleep(0.002)


def read_all(image: Any) -> bytes:
    """Return every byte of an open image, of a snapshot that it shows."""
    size, piece = int(image.size()), 4 << 20
    return b"".join(
        image.read(at, min(piece, size - at)) for at in range(0, size, piece)
    )
