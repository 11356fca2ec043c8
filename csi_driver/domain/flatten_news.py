# SPDX-License-Identifier: Apache-2.0
"""What users are told of one flatten: its begin, three quarters, its end.

The same words for a flatten beside I/O and for one by command.
"""

from __future__ import annotations

from typing import Final

from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Notices

QUARTERS: Final = (75, 50, 25)
"""Percent of the objects at which a flatten is told of, highest first."""

_STARTED: Final = (
    "flattening: what the volume reads from its parent is being copied, under its own"
    " key; it can be used all the while"
)
_STARTED_ELSEWHERE: Final = (
    "another Ceph client asked for a flatten, which the node that serves the volume"
    " carries out: do not take the volume away before it has ended; flatten by"
    " flattenPolicy or `rbdcrypt-csi volume flatten`, not by `rbd flatten`"
)
_FLATTENED: Final = (
    "flattened: the volume has all its data itself, its own key alone opens it, and"
    " it needs no parent any more"
)


class FlattenNews:
    """Tells of one flatten of one volume, each thing once."""

    def __init__(self, notices: Notices, volume_id: VolumeId) -> None:
        self._notices = notices
        self._volume_id = volume_id
        self._started = False
        self._told = 0

    @property
    def started(self) -> bool:
        """True once its begin was told or noted."""
        return self._started

    def note(self, done: int, total: int) -> None:
        """Take notice of how far it is, and tell only what comes after that."""
        self._started = True
        self._told = max(self._told, _quarter(done, total))

    def progressed(self, done: int, total: int, *, elsewhere: bool = False) -> None:
        """Tell that `done` of `total` objects are copied; `total` 0: not yet known.

        `elsewhere` is true for what another client asked for.
        """
        if not self._started:
            self._started = True
            message = _STARTED_ELSEWHERE if elsewhere else _STARTED
            self._tell(Happening.FLATTEN_STARTED, message)
        quarter = _quarter(done, total)
        if quarter > self._told:
            self._told = quarter
            message = f"{quarter} % of the volume's objects are its own"
            self._tell(Happening.FLATTEN_PROGRESS, message)

    def ended(self) -> None:
        """Tell that the volume is flat, verified and recorded."""
        self._tell(Happening.FLATTENED, _FLATTENED)

    def failed(self, reason: str) -> None:
        """Tell why it failed."""
        message = f"not flattened: {reason or 'see the log of the datapath'}"
        self._tell(Happening.FLATTEN_FAILED, message)

    def _tell(self, what: Happening, message: str) -> None:
        self._notices.tell(Notice(what, self._volume_id, message))


def _quarter(done: int, total: int) -> int:
    """Return the last quarter that was passed, in percent; 0 for none."""
    if total <= 0:
        return 0
    return next((each for each in QUARTERS if done * 100 >= each * total), 0)
