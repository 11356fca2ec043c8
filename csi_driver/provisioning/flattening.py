# SPDX-License-Identifier: Apache-2.0
"""Flattening a volume that is not staged, in this process.

librbd copies the parent's data, re-encrypted, through a loaded handle that owns
the image's lock; the record tells of it, so that a stage can ask for the volume.
Killed anywhere, it can be repeated: while the parent is attached the image loads
with all keys, also once its magic is that of a flat image already.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import threading
from collections.abc import Callable
from collections.abc import Mapping
from typing import Final

from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.flattening import FlattenWork
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.images.chains import read_chain
from csi_driver.images.connections import SharedConnections
from csi_driver.images.port import Ceph
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.provisioning.owning import Say
from csi_driver.provisioning.owning import owned
from csi_driver.provisioning.unlocking import Content
from csi_driver.provisioning.unlocking import Keys
from csi_driver.provisioning.unlocking import unlocked

LOOK_EVERY: Final = 0.5
"""Seconds between two looks into the record for a request to let go."""

_PROBE: Final = 4096
"""Bytes that are read once through the flat image."""

_INSTEAD: Final = (
    "it is flattened there, if its class has a flattenPolicy; to flatten it by"
    " hand, unstage it first"
)

type Progress = Callable[[int, int], None]
"""Told (done, total) in objects, in the caller's thread."""


@dataclasses.dataclass(frozen=True, slots=True)
class Flattening:
    """One flatten by hand.

    `own` is a Rados instance of this work's own, since fencing hits a whole
    instance; `shared` reads the record beside it.
    """

    own: Ceph
    shared: SharedConnections
    volume_id: VolumeId
    progress: Progress = lambda _done, _total: None
    say: Say = lambda _: None

    def run(self, secrets: Mapping[str, str]) -> Record:
        """Flatten, check the result and return the record of the flat volume.

        PreconditionError if there is nothing to flatten or snapshots would be
        orphaned; InUseError while it is staged; SecretError for a Secret that
        is not the volume's; CancelledError if a stage took the volume.
        """
        pool = self.own.pool_at(self.volume_id.location)
        record = read_record(pool, self.volume_id.image_id).require_ready()
        attached = _attached(pool, record)
        if not attached and not record.ancestors and record.flatten is None:
            message = f"volume {record.name!r} has no parent: nothing to flatten"
            raise PreconditionError(message)
        with (
            unlocked(record, secrets) as keys,
            owned(pool, keys, instead=_INSTEAD, say=self.say) as (content, _),
        ):
            if attached:
                self._flatten(pool, content)
            try:
                own_header = _require_flat(pool, keys)
            except BaseException:
                self._note(pool, lambda _: None)
                raise
            return change_record(
                pool,
                self.volume_id.image_id,
                lambda present: _flattened(present, own_header),
            )

    def _flatten(self, pool: Pool, content: Content) -> None:
        """Flatten under the lock; the record tells of it from here on."""
        work = FlattenWork(self.own.address)

        def begun(present: Record) -> Record:
            if present.require_ready().removing:
                message = (
                    f"a snapshot of volume {present.name!r} is being deleted: flatten"
                    " it once that is done"
                )
                raise PendingError(message)
            return dataclasses.replace(present, flatten=work)

        change_record(pool, self.volume_id.image_id, begun)
        try:
            _Run(self, content).wait()
        except BaseException:
            with contextlib.suppress(UnavailableError):  # the next one clears it
                self._note(pool, lambda _: None)
            raise

    def _note(
        self,
        pool: Pool,
        change: Callable[[FlattenWork], FlattenWork | None],
    ) -> FlattenWork | None:
        """Change what the record tells of this flatten; return what it tells."""

        def noted(present: Record) -> Record:
            work = present.flatten
            if work is None or work.client_address != self.own.address:
                return present
            return dataclasses.replace(present, flatten=change(work))

        return change_record(pool, self.volume_id.image_id, noted).flatten

    def look(self, done: int, total: int) -> bool:
        """Note the progress; False if a stage wants the volume."""
        with self.shared.pool_at(self.volume_id.location) as pool:
            work = self._note(
                pool, lambda work: dataclasses.replace(work, done=done, total=total)
            )
        return (
            work is not None
            and not work.cancel
            and work.client_address == self.own.address
        )


class _Run:
    """librbd's flatten in a thread of its own, and the looks beside it.

    The caller's thread stays free for a look at the record, and for Ctrl-C.
    """

    def __init__(self, flattening: Flattening, content: Content) -> None:
        self._flattening = flattening
        self._image = content.image
        self._cancelled = threading.Event()
        self._seen = (0, 0)

    def wait(self) -> None:
        """Flatten; CancelledError if a stage took the volume."""
        with concurrent.futures.ThreadPoolExecutor(1, "flatten") as threads:
            future = threads.submit(self._image.flatten, self._report)
            try:
                while not concurrent.futures.wait([future], LOOK_EVERY).done:
                    self._look()
            except BaseException:
                self._cancelled.set()
                raise
            try:
                future.result()
            except CancelledError as error:
                message = (
                    f"the flatten of {self._flattening.volume_id} was cancelled: a"
                    " stage took the volume; repeat it when it is unstaged"
                )
                raise CancelledError(message) from error
        self._flattening.progress(*self._seen)

    def _report(self, done: int, total: int) -> bool:
        # In a thread of librbd's.
        self._seen = (done, total)
        return not self._cancelled.is_set()

    def _look(self) -> None:
        self._flattening.progress(*self._seen)
        # A cluster that does not answer does not answer a stage either.
        with contextlib.suppress(UnavailableError, PendingError):
            if not self._flattening.look(*self._seen):
                self._cancelled.set()


def _attached(pool: Pool, record: Record) -> bool:
    """Tell whether the image reads a parent; refuse what a flatten would harm."""
    with pool.open_raw(record.image_id, read_only=True) as image:
        if image.parent() is None:
            return False
        count = len(image.snapshots())
        if record.mode.encrypted and count and "deep-flatten" in image.features():
            message = (
                f"volume {record.name!r} has {count} snapshots and its image the"
                " feature deep-flatten: a flatten would leave them without their"
                " parent, and they would never load again; delete them, or run"
                f" `rbd feature disable {pool.pool_name}/{image.name} deep-flatten`,"
                " which cannot be undone"
            )
            raise PreconditionError(message)
    return True


def _require_flat(pool: Pool, keys: Keys) -> str | None:
    """Check a flattened image: no parent, a flat magic, its own key alone.

    Returns the UUID of its header; None on a plaintext image.
    """
    record = keys.record
    layers = read_chain(pool, record.image_id)
    if len(layers) > 1:
        message = f"volume {record.name!r} still reads a parent after its flatten"
        raise HeaderError(message)
    if not record.mode.encrypted:
        return None
    if not layers[0].kind.encrypted or layers[0].kind.formatted_clone:
        message = (
            f"the header of volume {record.name!r} is {layers[0].kind.value} after"
            " its flatten: run `rbdcrypt-csi volume check`"
        )
        raise HeaderError(message)
    with pool.open_loaded(record.image_id, keys.specs(layers), read_only=True) as image:
        image.read(0, min(_PROBE, image.size().count))
    return layers[0].key


def _flattened(present: Record, own_header: str | None) -> Record:
    if present.mode is EncryptionMode.KEYRING and own_header is not None:
        present = dataclasses.replace(present, layers=(own_header,))
    return present.flattened()
