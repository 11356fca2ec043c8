# SPDX-License-Identifier: Apache-2.0
"""One volume in a worker: opened, loaded, locked, registered, served, closed.

The order of opening is what makes one writer: connect, open, load, take the
lock, and only then read the record, which cannot change its owner any more.
Records go over a second Ceph client of the same process.  Both were connected
in advance (`prepared`), or are connected side by side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from csi_driver.datapath import ownership
from csi_driver.datapath.flattening import Flattening
from csi_driver.datapath.flattening import begin_flattening
from csi_driver.datapath.giving_way import make_way
from csi_driver.datapath.hearing import Hearing
from csi_driver.datapath.holdings import Holdings
from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import Fenced
from csi_driver.datapath.messages import OpenImage
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.prepared import Prepared
from csi_driver.datapath.reaching import close_when_there
from csi_driver.datapath.reaching import reach_image
from csi_driver.datapath.reaching import reach_record
from csi_driver.datapath.sizing import Sizing
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.librbd_backend import LibrbdBackend
from csi_driver.nbd.librbd_image import LibrbdImage
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.server import Server

_log = structlog.get_logger(__name__)

type Announce = Callable[[str], None]
"""Tells the supervisor the Ceph client's address; returns when it is stored."""


class Session:
    """An export that can be served: `server.run()` does it.

    Control calls come from one thread; `close` from any, after the server has
    ended.
    """

    def __init__(
        self,
        volume: OpenVolume,
        image: LibrbdImage,
        held: Holdings,
        hearing: Hearing | None,
    ) -> None:
        self._image_id = volume.volume_id.image_id
        self._name = str(volume.volume_id)
        self._read_only = volume.read_only
        self._image = image
        self._held = held
        self._lock = threading.Lock()
        self._backend: LibrbdBackend[Operation] | None = None
        self._sizing = Sizing(volume, image, held.pool)
        self._hearing = hearing
        self.flattening: Flattening | None = None
        self.size = EffectiveSize(0)
        self.server: Server | None = None

    # ---------------------------------------------------------------- opening

    @property
    def fenced(self) -> Fenced | None:
        """The dead holder that had to be fenced for this."""
        return self._held.fenced

    def admit(self, record: Record, entry: ExportEntry) -> Record:
        """Return the record with this export; raises if it may not be served."""
        ownership.require_size(record, self._sizing.found(record.layout))
        if not entry.read_only:  # who has the lock knows that no other flattens
            record = dataclasses.replace(record, flatten=None)
        return record.with_export(entry)

    def prepare(self, socket_path: str, ceiling: int) -> int:
        """Make the server; return NBD's flags of the export."""
        backend: LibrbdBackend[Operation] = LibrbdBackend(self._image)
        self._backend = backend
        export = Export(
            size=self.size.count,
            ceiling=ceiling or None,
            read_only=self._read_only,
            can_flush=backend.can_flush,
            can_fua=backend.can_fua,
            can_multi_conn=backend.can_multi_conn,
            # nbdfuse corrupts data without it: it then emulates "zero this
            # range" by writing every block of it to one offset (libnbd 1.22).
            can_zero=bool(socket_path),
        )
        self.server = Server(backend, export, on_fatal=self._fenced)
        if socket_path:
            self.server.listen(Path(socket_path))
        return export.flags

    # ---------------------------------------------------------------- control

    def grow(self) -> EffectiveSize:
        """Bring image and export to the record's desired size; return it.

        Repeating it is harmless, also after a crash halfway; no exported byte is
        ever cut off.
        PreconditionError if Ceph shows another raw size than expected.
        """
        with self._lock:
            record = read_record(self._held.pool, self._image_id)
            target = max(record.desired, record.actual)
            self._sizing.fit(record.layout, target)
            if self.server is not None:
                self.server.set_size(target.count)
            self.size = target
        return target

    def confirm(self, size: EffectiveSize) -> None:
        """Record a verified size; it never gets smaller."""

        def raised(record: Record) -> Record:
            return dataclasses.replace(record, actual=max(record.actual, size))

        change_record(self._held.pool, self._image_id, raised)

    def flatten(self) -> None:
        """Begin to flatten; PreconditionError if there is nothing to flatten."""
        if self.flattening is None:
            message = (
                f"volume {self._name} is staged read-only: it is flattened at a"
                " writable stage, or by command while it is not staged"
                if self._read_only
                else f"volume {self._name} has no parent: there is nothing to flatten"
            )
            raise PreconditionError(message)
        self.flattening.request()

    def must_stay(self) -> str:
        """Return why the image must not be closed now; "" if it may be."""
        if self._hearing is None or not self._hearing.must_stay():
            return ""
        return (
            f"volume {self._name}: a flatten that another client asked for is under"
            " way; a close would ruin the image, so it has to wait"
        )

    def counters(self) -> Counters:
        """Return what the server has done so far."""
        if self.server is None:
            raise PreconditionError(f"volume {self._name} is not served yet")
        stats = self.server.stats()
        kinds = (stats.reads, stats.writes, stats.flushes)
        return Counters(
            reads=stats.reads.count,
            read_bytes=stats.reads.bytes,
            writes=stats.writes.count,
            written_bytes=stats.writes.bytes,
            flushes=stats.flushes.count,
            errors=sum(kind.errors for kind in kinds),
            rejected=stats.rejected,
            in_flight=stats.in_flight,
            connections=stats.connections,
            fenced=stats.fenced,
            flatten=None if self.flattening is None else self.flattening.status(),
        )

    # ----------------------------------------------------------------- ending

    def close(self) -> list[DriverError]:
        """Unregister, unlock, close, disconnect; return what went wrong.

        Every step is tried, because the last ones take the key away.  Others may
        ask for work until right before the image is closed.
        """
        if self._hearing is not None:
            self._hearing.await_end()
        steps = [
            self._stop_flattening,
            self._held.unregister,
            self._let_go,
            self._image.close if self._backend is None else self._backend.close,
            self._held.close,
        ]
        failures = []
        with self._lock:
            for step in steps:
                try:
                    step()
                except DriverError as error:
                    _log.warning("closing failed", volume=self._name, error=str(error))
                    failures.append(error)
        return failures

    def _stop_flattening(self) -> None:
        if self.flattening is not None:
            self.flattening.stop()

    def _let_go(self) -> None:
        if self._hearing is not None:
            self._hearing.let_go()

    # ---------------------------------------------------------------- details

    def _fenced(self, number: int) -> None:
        if self._hearing is not None:
            self._hearing.disown()
        _log.error(
            "this Ceph client was fenced: all I/O fails from now on",
            volume=self._name,
            errno=number,
            client=self._image.address,
        )


def open_session(
    request: OpenImage, announce: Announce, prepared: Prepared | None = None
) -> tuple[Session, int]:
    """Open a volume; return its session and NBD's flags of the export.

    `prepared` are clients made ahead, if there are any; they are used or closed.

    Raises InUseError with the holder's name, SecretError, HeaderError,
    PreconditionError and what else `images` and `nbd` raise; nothing stays open
    or registered then.  The request's secrets are wiped in any case.
    """
    volume = request.volume
    with contextlib.ExitStack() as undo:
        undo.callback(volume.wipe)
        ready = prepared if prepared and prepared.fits(volume) else None
        if prepared and not ready:
            prepared.close()
        with ThreadPoolExecutor(max_workers=1) as beside:
            holding = beside.submit(reach_record, request, ready)
            try:
                image = reach_image(volume, ready)
                undo.callback(image.close)
                hearing = _begin_hearing(volume, image)
            except BaseException:
                close_when_there(holding)
                raise
            if hearing is not None:
                undo.callback(hearing.let_go)
        held = holding.result()
        undo.callback(held.close)
        if not volume.read_only:
            make_way(image, held, request.predecessor)
        announce(image.address)
        if not volume.read_only:
            _lock(image, hearing)
        session = Session(volume, image, held, hearing)
        record = _own(session, volume, image, held)
        undo.callback(held.unregister)
        session.flattening = begin_flattening(volume, image, held, record, hearing)
        if session.flattening is not None:
            undo.callback(session.flattening.stop)
        flags = _size_and_serve(session, request, held)
        undo.pop_all()
    volume.wipe()
    return session, flags


def _begin_hearing(volume: OpenVolume, image: LibrbdImage) -> Hearing | None:
    """Return what hears of others' work; None where they cannot ask for any."""
    if volume.read_only or not image.has_parent():
        return None
    return Hearing(str(volume.volume_id), image)


def _lock(image: LibrbdImage, hearing: Hearing | None) -> None:
    """Take the lock, and with it what others ask its owner for."""
    if hearing is None:
        image.acquire_lock()
    else:
        hearing.own(image.acquire_lock)


def _own(
    session: Session, volume: OpenVolume, image: LibrbdImage, held: Holdings
) -> Record:
    """Judge the record under the lock and register in it; return it."""
    image_id = volume.volume_id.image_id
    entry = ExportEntry(
        volume.node_id,
        volume.boot_id,
        image.address,
        volume.read_only,
        held.connection.address if volume.read_only else "",
    )

    def admitted(record: Record) -> Record:
        ownership.require_servable(record, volume.mode)
        return session.admit(held.without_dead_exports(record), entry)

    admitted(read_record(held.pool, image_id))  # checks whose record it is, too
    record = change_record(held.pool, image_id, admitted)
    held.entry = entry
    session.size = record.actual
    if held.watcher is not None:
        try:
            _require_no_writer(held.watcher, record)
        except BaseException:
            held.unregister()
            raise
    return record


def _require_no_writer(watcher: RawImage, record: Record) -> None:
    """Look at the lock once more, now that writers can see this reader."""
    owner = watcher.lock_owner()
    if owner is not None:
        message = (
            f"volume {record.name!r} is being written by the Ceph client at"
            f" {owner.address}: it cannot be staged read-only meanwhile"
        )
        raise InUseError(message)


def _size_and_serve(session: Session, request: OpenImage, held: Holdings) -> int:
    """Grow if that was promised since the last stage; make the server."""
    volume = request.volume
    if not volume.read_only:
        record = read_record(held.pool, volume.volume_id.image_id)
        if record.desired > record.actual:
            session.confirm(session.grow())
    return session.prepare(request.socket_path, request.ceiling)
