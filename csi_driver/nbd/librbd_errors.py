# SPDX-License-Identifier: Apache-2.0
"""What librbd's numbers mean, which depends on the call that returned them.

The same EPERM is a wrong passphrase when it comes from a load, a wrong key when
it comes from connecting, and missing rights elsewhere (measured on 18.2.7).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import CephKeyError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.errors import UnsupportedError

type Table = Mapping[int, tuple[type[DriverError], str]]

_ANYWHERE: Final[Table] = {
    errno.EPERM: (ForbiddenError, "Ceph refuses this to the user"),
    errno.EACCES: (ForbiddenError, "Ceph refuses this to the user"),
    errno.ENOENT: (NotFoundError, "it does not exist"),
    errno.ETIMEDOUT: (UnavailableError, "Ceph did not answer in time"),
    errno.ENOTCONN: (UnavailableError, "Ceph cannot be reached"),
    errno.ESHUTDOWN: (FencedError, "this Ceph client is on the blocklist"),
    errno.ENOSPC: (ExhaustedError, "the pool is full"),
    errno.EDQUOT: (ExhaustedError, "the pool's quota is used up"),
    errno.EBUSY: (InUseError, "it is in use"),
    errno.EROFS: (InUseError, "it is read-only, or its lock belongs to another client"),
}
SETUP: Final[Table] = {
    errno.EINVAL: (InvalidRequestError, "user, option or its value is malformed"),
}
CONNECT: Final[Table] = {
    errno.EINVAL: (
        CephKeyError,
        "the user's key is no cephx key, or the monitors are malformed",
    ),
    errno.EPERM: (CephKeyError, "the key is not the user's"),
    errno.EACCES: (CephKeyError, "the key is not the user's"),
    errno.ENOENT: (
        InvalidRequestError,
        "no monitor address was given, or the user has no key",
    ),
}
POOL: Final[Table] = {errno.ENOENT: (NotFoundError, "there is no such pool")}
OPEN: Final[Table] = {errno.ENOENT: (NotFoundError, "there is no such image")}
LOAD: Final[Table] = {
    errno.EPERM: (SecretError, "a passphrase opens no key slot of its layer"),
    errno.EINVAL: (
        HeaderError,
        "a header is missing, damaged or of another kind, or there are fewer layers",
    ),
    errno.ENOTSUP: (
        UnsupportedError,
        "the cipher is not aes-xts-plain64, or journaling is enabled on the image",
    ),
    errno.EEXIST: (AlreadyLoadedError, "its encryption is loaded already"),
}
RESIZE: Final[Table] = {
    errno.EINVAL: (SizeError, "that is less than its size now"),
    errno.EFBIG: (SizeError, "that is more than an image can have"),
}
FLATTEN: Final[Table] = {
    errno.EINVAL: (
        PreconditionError,
        "it has no parent, or objects of its header area are missing",
    ),
    errno.ECANCELED: (CancelledError, "that was cancelled"),
}
LOCK: Final[Table] = {
    errno.EROFS: (InUseError, "another client holds its exclusive lock"),
    errno.EBUSY: (InUseError, "another client holds its exclusive lock"),
    errno.EINVAL: (
        UnsupportedError,
        "the image lacks the exclusive-lock feature or was opened read-only",
    ),
}
GENERAL: Final[Table] = {}


def error_for(number: int, table: Table, subject: str, action: str) -> DriverError:
    """Return the error for a positive errno of one call.

    `subject` names the volume, `action` what was tried, as in "load its
    encryption".  What no table knows is an InternalError with the number.
    """
    kind, reason = table.get(number) or _ANYWHERE.get(number, (InternalError, ""))
    name = errno.errorcode.get(number, str(number))
    reason = reason or os.strerror(number)
    return kind(f"{subject}: cannot {action}: {reason} ({name})")


def check(result: int, table: Table, subject: str, action: str) -> int:
    """Return a call's result, or raise what a negative one means."""
    if result < 0:
        raise error_for(-result, table, subject, action)
    return result
