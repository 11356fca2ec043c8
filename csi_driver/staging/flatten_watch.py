# SPDX-License-Identifier: Apache-2.0
"""Follows the flattens that workers carry out beside I/O, and tells of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.datapath.messages import ExportStatus
from csi_driver.domain.flatten_news import FlattenNews
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Notices

_COPYING: Final = frozenset({FlattenState.COPYING, FlattenState.FOREIGN})
_FOLLOWED: Final = frozenset(
    {FlattenState.WAITING, FlattenState.VERIFYING, *_COPYING},
)
_ENDED: Final = frozenset({FlattenState.IDLE, FlattenState.DONE, FlattenState.FAILED})


@dataclasses.dataclass(slots=True)
class _Followed:
    """The flatten of one worker, and the state it was last seen in."""

    worker_pid: int
    news: FlattenNews
    state: FlattenState = FlattenState.IDLE


class FlattenWatch:
    """An observer of `watching`.

    What it finds at its very first look was told by the node service before this
    one, or is past: it is noted, and told of from there on.
    """

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._followed: dict[VolumeId, _Followed] = {}
        self._looked = False

    def look(self, exports: Sequence[ExportStatus]) -> bool:
        """Tell what is new; True while something is flattened."""
        seen: dict[VolumeId, _Followed] = {}
        for export in exports:
            known = self._followed.get(export.volume_id)
            if export.counters is None and export.alive and known is not None:
                seen[export.volume_id] = known  # its worker was busy
            elif export.counters is not None and export.counters.flatten is not None:
                seen[export.volume_id] = self._follow(
                    export, export.counters.flatten, known
                )
        self._followed = seen
        self._looked = True
        return any(each.state in _FOLLOWED for each in seen.values())

    def _follow(
        self, export: ExportStatus, status: FlattenStatus, known: _Followed | None
    ) -> _Followed:
        if known is None or known.worker_pid != export.worker_pid:
            news = FlattenNews(self._notices, export.volume_id)
            known = _Followed(export.worker_pid, news)
        if status.state in _COPYING and known.state in _ENDED:
            known.news = FlattenNews(self._notices, export.volume_id)
        if self._looked:
            _tell(known, status)
        elif status.state in _COPYING:
            known.news.note(status.done, status.total)
        known.state = status.state
        return known


def _tell(known: _Followed, status: FlattenStatus) -> None:
    if status.state in _COPYING:
        known.news.progressed(
            status.done,
            status.total,
            elsewhere=status.state is FlattenState.FOREIGN,
        )
    elif status.state is FlattenState.DONE and known.state is not FlattenState.DONE:
        known.news.ended()
    elif status.state is FlattenState.FAILED and known.state is not FlattenState.FAILED:
        known.news.failed(status.reason)
