# SPDX-License-Identifier: Apache-2.0
"""Hearing what librbd's clients tell each other about an image.

They notify the watchers of the image's header object.  This watch belongs to
the image's own Ceph client, so that it shows the same address as librbd's own
and ends with it when that client is fenced.  What is said there is read by
`images.foreign`.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Final

import structlog

from csi_driver.domain.errors import DriverError
from csi_driver.nbd import librbd_api as api
from csi_driver.nbd import librbd_errors as errors
from csi_driver.nbd.librbd_connection import Connection

RENEW_SECONDS: Final = 2.0
"""How long to wait before a watch that Ceph ended is tried again."""

_log = structlog.get_logger(__name__)


class HeaderWatch:
    """A watch on an image's header object.

    `on_notify` is called by librados' threads with each message.  It must not
    block: who sent the message waits for it.
    """

    def __init__(
        self, connection: Connection, image_id: str, on_notify: Callable[[bytes], None]
    ) -> None:
        """Begin to watch; NotFoundError without the image."""
        self._library = api.library()
        self._connection = connection
        self._object = f"rbd_header.{image_id}".encode()
        self._heard = on_notify
        # librados keeps their addresses until the watch has ended.
        self._on_notify = api.ON_NOTIFY(self._notified)
        self._on_error = api.ON_WATCH_ERROR(self._lost)
        self._cookie = ctypes.c_uint64()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._begin()

    def close(self) -> None:
        """End the watch; nothing is called afterwards.  Harmless when repeated."""
        self._closed.set()
        with self._lock:
            self._end()
        self._library["rados_watch_flush"](self._connection.cluster)

    def _begin(self) -> None:
        result = self._library["rados_watch3"](
            self._connection.ioctx,
            self._object,
            ctypes.byref(self._cookie),
            self._on_notify,
            self._on_error,
            0,
            None,
        )
        errors.check(result, errors.OPEN, self._object.decode(), "watch it")

    def _end(self) -> None:
        if self._cookie.value:
            # Of a watch that is lost Ceph says so, and that is all right.
            self._library["rados_unwatch2"](self._connection.ioctx, self._cookie)
            self._cookie = ctypes.c_uint64()

    def _notified(  # librados' signature
        self,
        _argument: int | None,
        notify_id: int,
        cookie: int,
        _notifier: int,
        data: int | None,
        length: int,
    ) -> None:
        try:
            self._heard(ctypes.string_at(data, length) if data else b"")
        except Exception as error:  # noqa: BLE001  # never through C
            _log.error("a notification was not understood", exc_info=error)
        self._library["rados_notify_ack"](
            self._connection.ioctx, self._object, notify_id, cookie, None, 0
        )

    def _lost(self, _argument: int | None, _cookie: int, number: int) -> None:
        """Begin anew, in another thread: librados' own must not wait."""
        _log.warning("watch lost", object=self._object.decode(), errno=-number)
        threading.Thread(target=self._renew, daemon=True, name="watch").start()

    def _renew(self) -> None:
        while not self._closed.wait(RENEW_SECONDS):
            with self._lock:
                if self._closed.is_set():
                    return
                self._end()
                try:
                    self._begin()
                except DriverError as error:
                    _log.info("watch not renewed yet", error=str(error))
                else:
                    return
