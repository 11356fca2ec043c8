# SPDX-License-Identifier: Apache-2.0
"""What CreateVolume tells the owner of a claim beside its answer.

The provisioner shows the answer on the claim, as ProvisioningFailed like all
others; a clone that is refused has a reason of its own, to be looked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import structlog

from csi_driver.domain.errors import CephKeyError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.domain.notices import Notices
from csi_driver.domain.notices import claim_of
from csi_driver.provisioning.requests import CreateRequest

_REFUSALS: Final = (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    SecretError,
    SizeError,
    UnsupportedError,
)
"""What stays until the owner of the claim acts, or somebody for them; the key of
the driver's own Ceph user is none of it, and all else may pass by itself."""

_log = structlog.get_logger(__name__)


@contextlib.contextmanager
def refusals_told(notices: Notices, request: CreateRequest) -> Iterator[None]:
    """Tell the owner of the claim why a clone is not made."""
    try:
        yield
    except DriverError as error:
        refused = isinstance(error, _REFUSALS) and not isinstance(error, CephKeyError)
        if request.source is not None and refused:
            _tell(notices, request, error)
        raise


def _tell(notices: Notices, request: CreateRequest, error: DriverError) -> None:
    claim = claim_of(request.name, request.parameters)
    if claim is None:
        _log.debug("no claim known", volume=request.name)
        return
    notices.tell(Notice(Happening.CLONE_REFUSED, claim, str(error)))
