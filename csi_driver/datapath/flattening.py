# SPDX-License-Identifier: Apache-2.0
"""Flattening an open clone beside its I/O, in the worker that owns its lock.

Two ways lead to a clone without parent: a flatten of our own, by policy or
because it was asked for, and one that another client asked the lock's owner
for.  Either ends with the same verification, and only then says the record so.
What librbd does is in `nbd`, what others ask for is heard of in `hearing`.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.datapath.hearing import Hearing
from csi_driver.datapath.holdings import Holdings
from csi_driver.datapath.messages import OpenVolume
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.flattening import FlattenWork
from csi_driver.domain.record import Record
from csi_driver.domain.secrets import SecretBytes
from csi_driver.images.foreign import Kind
from csi_driver.images.foreign import Message
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.nbd.librbd_image import LibrbdImage

PUBLISH_SECONDS: Final = 5.0
"""How often the record is told how far a flatten is."""

RECOVERY_SECONDS: Final = 2.0
"""How often the record is asked whether the journal has been replayed."""

_LOGGED: Final = 12
"""Every so many reports to the record go to the log, too."""

_MAGIC_LENGTH: Final = 8
_log = structlog.get_logger(__name__)


class Flattening:
    """What flattens one open, writable clone.

    It keeps a copy of the passphrase of the clone's own layer, with which the
    result is verified, until that is done or the volume is closed: a flatten
    can be asked for at any time.  Methods may be called from any thread.
    """

    def __init__(
        self, name: str, image: LibrbdImage, held: Holdings, own: LayerSpec | None
    ) -> None:
        """`own` is this object's to wipe; None for a plaintext clone."""
        self._name = name
        self._image = image
        self._held = held
        self._image_id = held.volume_id.image_id
        self._own = own
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._status = FlattenStatus()
        self._flat = False

    # ---------------------------------------------------------------- requests

    def start(self) -> None:
        """Begin, unless it is under way or done."""
        self._launch(self._flatten)

    def catch_up(self) -> None:
        """Verify and record, if the parent is gone by other hands."""
        self._launch(self._complete)

    def request(self) -> None:
        """As `start`; PreconditionError if there is nothing to flatten."""
        with self._lock:
            running = self._thread is not None and self._thread.is_alive()
        if running:
            return
        if self._flat or self._image.has_parent():
            self._image.require_flattenable()
        self.start()

    def status(self) -> FlattenStatus:
        """Tell how it stands."""
        return self._status

    def attend(self, hearing: Hearing) -> None:
        """Take part in what other clients ask for."""
        hearing.tell(self._told)
        if hearing.must_stay():  # it was heard of before
            self._become(FlattenState.FOREIGN)

    def stop(self) -> None:
        """Cancel an own flatten, wait for its end, take it out of the record."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        self._forget_key()

    # -------------------------------------------------------------- the thread

    def _launch(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._stopping.is_set() or self._flat:
                return
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(
                target=self._run, args=(work,), daemon=True, name="flatten"
            )
            self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except CancelledError:
            _log.info("flatten cancelled", volume=self._name)
            self._become(FlattenState.IDLE)
        except DriverError as error:
            _log.error("flatten failed", volume=self._name, error=str(error))
            self._status = dataclasses.replace(
                self._status, state=FlattenState.FAILED, reason=str(error)
            )
        except Exception as error:  # noqa: BLE001  # nobody else would hear of it
            _log.error("flatten failed unforeseen", volume=self._name, exc_info=error)
            self._become(FlattenState.FAILED)
        if not self._flat:
            self._withdraw()

    def _flatten(self) -> None:
        self._await_recovery()
        if self._image.has_parent():
            self._copy()
        self._complete()

    def _await_recovery(self) -> None:
        """Wait until the clone's first stage is through with its filesystem."""
        while not read_record(self._held.pool, self._image_id).recovered:
            self._become(FlattenState.WAITING)
            if self._stopping.wait(RECOVERY_SECONDS):
                raise CancelledError(f"volume {self._name} is being closed")

    def _announce(self) -> None:
        """Say so in the record, once no snapshot is being removed."""

        def begun(record: Record) -> Record:
            if record.removing:
                message = f"a snapshot of volume {self._name} is being deleted"
                raise PendingError(message)
            return dataclasses.replace(record, flatten=FlattenWork(self._image.address))

        while True:
            try:
                change_record(self._held.pool, self._image_id, begun)
            except PendingError as error:
                _log.info("flatten waits", volume=self._name, reason=str(error))
            else:
                return
            self._become(FlattenState.WAITING)
            if self._stopping.wait(RECOVERY_SECONDS):
                raise CancelledError(f"volume {self._name} is being closed")

    def _copy(self) -> None:
        """Flatten, and tell the record and the log how far it is."""
        self._announce()
        _log.info("flatten begins", volume=self._name)
        self._become(FlattenState.COPYING)
        begin = time.monotonic()
        with ThreadPoolExecutor(1, thread_name_prefix="flatten") as beside:
            copying = beside.submit(self._image.flatten, self._progressed)
            reports = 0
            while not _ended(copying):
                reports += 1
                self._publish_quietly(to_log=reports % _LOGGED == 0)
        copying.result()
        seconds = round(time.monotonic() - begin, 3)
        _log.info("flatten copied all", volume=self._name, seconds=seconds)

    def _complete(self) -> None:
        """Verify, and let the record say so; nothing to do while there is a parent."""
        if self._image.has_parent():
            return
        self._become(FlattenState.VERIFYING)
        self._verify()
        change_record(self._held.pool, self._image_id, Record.flattened)
        self._become(FlattenState.DONE)
        self._flat = True
        self._forget_key()
        _log.info("flattened, verified and recorded", volume=self._name)

    def _verify(self) -> None:
        """Look at the image as one who opens it next does."""
        pool = self._held.pool
        with pool.open_raw(self._image_id, read_only=True) as raw:
            parent = raw.parent()
            kind = header_kind(raw.read_header(_MAGIC_LENGTH))
        if parent is not None:
            message = f"volume {self._name} still reads {parent.path} after a flatten"
            raise PreconditionError(message)
        if self._own is None:
            return
        if not kind.encrypted or kind.formatted_clone:
            message = (
                f"volume {self._name} shows the header {kind.value!r} after a flatten,"
                " not that of a flat image: its record was left as it was, and it"
                " must not be closed before it has been copied elsewhere"
            )
            raise HeaderError(message)
        specs = LoadSpecs((self._own,))
        pool.open_loaded(self._image_id, specs, read_only=True).close()

    # ------------------------------------------------------- librbd's threads

    def _progressed(self, done: int, total: int) -> bool:
        self._become(FlattenState.COPYING, done, total)
        return not self._stopping.is_set()

    def _told(self, message: Message) -> None:
        match message.kind:
            case Kind.FLATTEN:
                _log.warning(
                    "another client has this worker flatten the image: it is not"
                    " closed before that has ended",
                    volume=self._name,
                )
                self._become(FlattenState.FOREIGN)
            case Kind.PROGRESS if self._status.state is FlattenState.FOREIGN:
                self._become(FlattenState.FOREIGN, message.done, message.total)
            case Kind.COMPLETE:
                _log.info(
                    "what another client asked for has ended",
                    volume=self._name,
                    result=message.result,
                )
                if self._status.state is FlattenState.FOREIGN:
                    self._become(FlattenState.IDLE)
                self.catch_up()

    # ---------------------------------------------------------------- details

    def _become(self, state: FlattenState, done: int = 0, total: int = 0) -> None:
        if not self._flat:
            self._status = FlattenStatus(state, done, total)

    def _publish(self) -> None:
        """Tell others by the record; a wish to cancel is kept."""
        now = self._status
        fresh = FlattenWork(self._image.address)

        def told(record: Record) -> Record:
            work = record.flatten
            if work is None or work.client_address != fresh.client_address:
                work = fresh
            work = dataclasses.replace(work, done=now.done, total=now.total)
            return dataclasses.replace(record, flatten=work)

        change_record(self._held.pool, self._image_id, told)

    def _publish_quietly(self, *, to_log: bool) -> None:
        now = self._status
        if to_log:
            _log.info("flatten", volume=self._name, done=now.done, total=now.total)
        try:
            self._publish()
        except DriverError as error:
            _log.warning("flatten not reported", volume=self._name, error=str(error))

    def _withdraw(self) -> None:
        """Take this flatten out of the record."""

        def without(record: Record) -> Record:
            work = record.flatten
            if work is None or work.client_address != self._image.address:
                return record
            return dataclasses.replace(record, flatten=None)

        try:
            change_record(self._held.pool, self._image_id, without)
        except DriverError as error:
            _log.warning("flatten stays noted", volume=self._name, error=str(error))

    def _forget_key(self) -> None:
        if self._own is not None:
            self._own.passphrase.wipe()


def begin_flattening(
    volume: OpenVolume,
    image: LibrbdImage,
    held: Holdings,
    record: Record,
    hearing: Hearing | None,
) -> Flattening | None:
    """Return what flattens a volume that was just opened, at work if it has to be.

    None for what cannot be flattened here: a reader, or a volume whose record
    knows of no parent.
    """
    if volume.read_only or not record.ancestors:
        return None
    own = None
    if volume.specs is not None:
        own = volume.specs.layers[0]
        own = LayerSpec(SecretBytes(own.passphrase.reveal()), own.format)
    flattening = Flattening(str(volume.volume_id), image, held, own)
    if hearing is not None:
        flattening.attend(hearing)
    if record.parameters.flatten_policy.wants(record.ancestors):
        flattening.start()
    else:
        flattening.catch_up()
    return flattening


def _ended(work: Future[None]) -> bool:
    """Wait for an end, as long as the record can do without news."""
    try:
        work.exception(PUBLISH_SECONDS)
    except TimeoutError:
        return False
    return True
