# SPDX-License-Identifier: Apache-2.0
"""Which PersistentVolumeClaim a volume is bound to, as its PersistentVolume says.

Anyone who may make a PersistentVolume chooses what stands in it: it counts only
if it is of this driver and of this volume, or a stranger's claim would get the
Events.
"""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Claim
from csi_driver.kube.contract import VolumeReader

KNOWN_SECONDS: Final = 300.0
"""How long a claim is taken for the volume's without asking again."""

UNKNOWN_SECONDS: Final = 60.0
"""How long nobody is asked again after there was no claim to be found."""

_MOST: Final = 1024
_log = structlog.get_logger(__name__)

type NameOf = Callable[[VolumeId], str]
"""Returns the name of a volume's PersistentVolume; raises DriverError."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    claim: Claim | None
    until: float
    fault: str = ""
    """Why nobody could be asked."""


class Claims:
    """Finds claims and remembers them for a while.  For one thread."""

    def __init__(
        self,
        driver: str,
        volumes: VolumeReader,
        name_of: NameOf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = driver
        self._volumes = volumes
        self._name_of = name_of
        self._clock = clock
        self._known: OrderedDict[VolumeId, _Found] = OrderedDict()

    def find(self, volume_id: VolumeId) -> Claim | None:
        """Return the volume's claim; None, with a line in the log, without one.

        UnavailableError if the API server, or Ceph, could not be asked.
        """
        known = self._known.pop(volume_id, None)
        if known is None or self._clock() >= known.until:
            known = self._look(volume_id)
        self._known[volume_id] = known
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        if known.fault:
            raise UnavailableError(known.fault)
        return known.claim

    def _look(self, volume_id: VolumeId) -> _Found:
        try:
            claim, fault = self._ask(volume_id), ""
        except (ForbiddenError, UnavailableError) as error:
            claim, fault = None, f"no claim known: {error}"
        lasts = UNKNOWN_SECONDS if claim is None else KNOWN_SECONDS
        return _Found(claim, self._clock() + lasts, fault)

    def _ask(self, volume_id: VolumeId) -> Claim | None:
        try:
            name = self._name_of(volume_id)
            found = self._volumes.read_persistent_volume(name)
        except (ForbiddenError, UnavailableError):
            raise
        except DriverError as error:
            _log.info("no claim known", volume=str(volume_id), reason=str(error))
            return None
        if (found.driver, found.volume_handle) != (self._driver, str(volume_id)):
            _log.info(
                "a PersistentVolume is not of this volume: no claim known",
                volume=str(volume_id),
                persistent_volume=name,
                found=found.volume_handle,
            )
            return None
        if found.claim is None:
            _log.info("not bound to a claim", volume=str(volume_id))
        return found.claim
