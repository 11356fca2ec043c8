# SPDX-License-Identifier: Apache-2.0
"""Controllers that die or fail at their Nth call to Ceph, in this process.

A dead one carries out no further call, not even one that closes a handle; its
Rados instances are kept, to be buried while its handles still exist.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.errors import UnavailableError
from csi_driver.images.port import Ceph
from csi_driver.images.port import Connector
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from csi_driver.testing.faults import When
from tests.unit.model.data import Place
from tests.unit.provisioning.worlds import Controller

_INJECTED: Final = "the injected error"


class KilledError(BaseException):
    """The process is gone; no handler of the driver's may catch that."""


@dataclasses.dataclass(frozen=True)
class Trouble:
    """What befalls a controller at its call number `at`: death, or an error."""

    at: int
    dies: bool = True
    when: When = When.BEFORE


class TroubledSteps(Steps):
    """Steps that the trouble befalls, until it is over."""

    def __init__(self, trouble: Trouble) -> None:
        error = None if trouble.dies else UnavailableError(_INJECTED)
        super().__init__(Fault(0 if trouble.dies else trouble.at, trouble.when, error))
        self._trouble = trouble
        self.over = False

    def run[**P, R](
        self, name: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Carry out one step, or die: no step from the chosen one on is."""
        if self.over:
            return call(*args, **kwargs)
        if self._trouble.dies and len(self.names) + 1 >= self._trouble.at:
            raise KilledError
        return super().run(name, call, *args, **kwargs)


class Remembering:
    """A connector that knows what it made."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self.made: list[Ceph] = []

    def connect(self, cluster: str, user: CephUser | None = None) -> Ceph:
        """Connect."""
        self.made.append(self._connector.connect(cluster, user))
        return self.made[-1]


def attempt(
    place: Place, trouble: Trouble | None, call: Callable[[Controller], object]
) -> None:
    """Let a controller of its own try it and, with trouble, perhaps not succeed."""
    if trouble is None:
        return
    remembering = Remembering(place.world.connector)
    steps = TroubledSteps(trouble)
    controller = place.world.controller(FaultyConnector(remembering, steps))
    try:
        call(controller)
    except UnavailableError as error:
        if _INJECTED not in str(error):
            raise
    except KilledError:
        # Here its frames still hold its handles, which would close themselves.
        for ceph in remembering.made:
            place.bury(ceph)
    finally:
        steps.over = True
