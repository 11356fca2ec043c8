# SPDX-License-Identifier: Apache-2.0
"""What a stage tells users beside its answer.

kubelet shows the answer on the pod.  The owner of the claim is told, too, where a
wrong Secret or another holder keeps the volume away, and of a holder that was
fenced, since then the stage succeeds and nobody would say so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from csi_driver.datapath.messages import Fenced
from csi_driver.domain.errors import CephKeyError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Notices


@contextlib.contextmanager
def failures_told(notices: Notices, volume_id: VolumeId) -> Iterator[None]:
    """Tell of a stage's failure what the owner of the claim has to know."""
    try:
        yield
    except DriverError as error:
        what = _happening(error)
        if what is not None:
            notices.tell(Notice(what, volume_id, str(error)))
        raise


def tell_fenced(
    notices: Notices, volume_id: VolumeId, node_id: str, fenced: Fenced | None
) -> None:
    """Tell whose lock was broken by opening the volume here."""
    if fenced is None:
        return
    who = "a Ceph client that is no export of this driver"
    if fenced.node_id == node_id:
        who = "an earlier export on the same node"
    elif fenced.node_id:
        who = f"node {fenced.node_id!r}"
    message = (
        f"{who} held the volume and was dead to Ceph: its client at"
        f" {fenced.client_address} was fenced, so that nothing it still writes"
        f" arrives, and the volume was opened on node {node_id!r}"
    )
    notices.tell(Notice(Happening.HOLDER_FENCED, volume_id, message))


def _happening(error: DriverError) -> Happening | None:
    """Return what a failure is to a user; None if kubelet's word is enough.

    The key of a Ceph user is no passphrase, and mostly the driver's own.
    """
    match error:
        case CephKeyError():
            return None
        case SecretError():
            return Happening.WRONG_SECRET
        case InUseError():
            return Happening.VOLUME_IN_USE
    return None
