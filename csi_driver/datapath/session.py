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
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from csi_driver.datapath import ownership
from csi_driver.datapath.holdings import Holdings
from csi_driver.datapath.holdings import connect_pool
from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import OpenImage
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.messages import Predecessor
from csi_driver.datapath.prepared import Prepared
from csi_driver.datapath.prepared import ceph_client
from csi_driver.datapath.sizing import Sizing
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.librbd_backend import LibrbdBackend
from csi_driver.nbd.librbd_connection import Connection
from csi_driver.nbd.librbd_image import ImageTarget
from csi_driver.nbd.librbd_image import LibrbdImage
from csi_driver.nbd.librbd_image import Plaintext
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

    def __init__(self, volume: OpenVolume, image: LibrbdImage, held: Holdings) -> None:
        self._image_id = volume.volume_id.image_id
        self._name = str(volume.volume_id)
        self._read_only = volume.read_only
        self._image = image
        self._held = held
        self._lock = threading.Lock()
        self._backend: LibrbdBackend[Operation] | None = None
        self._sizing = Sizing(volume, image, held.pool)
        self.size = EffectiveSize(0)
        self.server: Server | None = None

    # ---------------------------------------------------------------- opening

    def admit(self, record: Record, entry: ExportEntry) -> Record:
        """Return the record with this export; raises if it may not be served."""
        ownership.require_size(record, self._sizing.found(record.layout))
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
        )

    # ----------------------------------------------------------------- ending

    def close(self) -> list[DriverError]:
        """Unregister, unlock, close, disconnect; return what went wrong.

        Every step is tried, because the last ones take the key away.
        """
        steps = [
            self._held.unregister,
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

    # ---------------------------------------------------------------- details

    def _fenced(self, number: int) -> None:
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
            holding = beside.submit(_hold, request, ready)
            try:
                image = _load(volume, ready)
            except BaseException:
                _close_when_there(holding)
                raise
            undo.callback(image.close)
        held = holding.result()
        undo.callback(held.close)
        if not volume.read_only:
            _make_way(image, held, request.predecessor)
        announce(image.address)
        session = Session(volume, image, held)
        _own(session, volume, image, held)
        undo.callback(held.unregister)
        flags = _size_and_serve(session, request, held)
        undo.pop_all()
    volume.wipe()
    return session, flags


def _load(volume: OpenVolume, prepared: Prepared | None) -> LibrbdImage:
    """Connect, open, load at once; refuse a cache."""
    if prepared is not None:
        try:
            return _load_by(volume, prepared.image)
        except (FencedError, UnavailableError) as error:
            _log.info("not using the client made ahead", error=str(error))
    return _load_by(volume, None)


def _load_by(volume: OpenVolume, connection: Connection | None) -> LibrbdImage:
    target = ImageTarget(
        pool=volume.pool_name,
        image_id=volume.volume_id.image_id,
        namespace=volume.volume_id.location.namespace,
        read_only=volume.read_only,
    )
    try:
        encryption = volume.specs or Plaintext()
        return LibrbdImage(ceph_client(volume), target, encryption, connection)
    except HeaderError as error:
        raise ownership.missing_header(error, str(volume.volume_id)) from error


def _hold(request: OpenImage, prepared: Prepared | None) -> Holdings:
    """Connect for the record, unless that is done already, beside the load.

    A reader keeps the handle that was opened for writing, and never writes: it
    is the watcher that others see.
    """
    volume = request.volume
    with contextlib.ExitStack() as undo:
        pool = prepared.pool_for(volume) if prepared else None
        if prepared and pool:
            connection = prepared.records
        else:
            connection, pool = connect_pool(
                volume.volume_id, volume.monitors, volume.user_id, volume.key
            )
        undo.callback(connection.close)
        held = Holdings(
            connection, pool, volume.volume_id, volume.node_id, volume.boot_id
        )
        if volume.read_only:
            held.watcher = pool.open_raw(volume.volume_id.image_id)
            undo.callback(held.watcher.close)
            held.break_dead_lock(held.watcher, request.predecessor)
        undo.pop_all()
    return held


def _make_way(image: LibrbdImage, held: Holdings, predecessor: Predecessor) -> None:
    """Take a dead predecessor's lock from it.

    The loaded handle is asked who has it: a raw one, which alone can break it,
    costs as much to open as the loaded one did.
    """
    if image.lock_owners():
        with held.pool.open_raw(held.volume_id.image_id) as raw:
            held.break_dead_lock(raw, predecessor)


def _own(
    session: Session, volume: OpenVolume, image: LibrbdImage, held: Holdings
) -> None:
    """Take the lock, then judge the record and register in it."""
    if not volume.read_only:
        image.acquire_lock()
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


def _close_when_there(holding: Future[Holdings]) -> None:
    """Close what was opened beside a load that failed."""
    try:
        held = holding.result()
    except DriverError as error:
        _log.info("opening failed twice", error=str(error))
    else:
        held.close()
