# SPDX-License-Identifier: Apache-2.0
"""Notices when the export behind a published volume is dead.

Its users see I/O errors, and only a new pod helps; nobody else tells them so.
"""

from __future__ import annotations

from collections.abc import Sequence

from csi_driver.datapath.messages import ExportStatus
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Notices
from csi_driver.staging.state import Published

_GONE = "the datapath does not serve it any more"


class LossWatch:
    """An observer of `watching`; tells once of each volume that is lost."""

    def __init__(self, notices: Notices, published: Published) -> None:
        self._notices = notices
        self._published = published
        self._suspected: set[VolumeId] = set()
        self._told: set[VolumeId] = set()

    def look(self, exports: Sequence[ExportStatus]) -> bool:
        """Tell what is lost at two looks in a row; True to have the second soon.

        At one look it may just have been published, or be about to be closed.
        """
        served = {each.volume_id: each for each in exports}
        published = self._published()
        lost = {
            volume_id: _reason(served.get(volume_id))
            for volume_id in published
            if volume_id not in served or not served[volume_id].alive
        }
        self._told &= lost.keys()
        for volume_id in (lost.keys() & self._suspected) - self._told:
            self._told.add(volume_id)
            message = (
                f"the export of the volume is dead ({lost[volume_id]}): its I/O fails;"
                " delete the pods that use it, so that kubelet stages it anew"
            )
            self._notices.tell(Notice(Happening.EXPORT_LOST, volume_id, message))
            for pod in published[volume_id]:
                self._notices.tell(Notice(Happening.EXPORT_LOST, pod, message))
        self._suspected = set(lost)
        return bool(self._suspected - self._told)


def _reason(status: ExportStatus | None) -> str:
    return _GONE if status is None else status.reason
