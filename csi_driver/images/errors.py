# SPDX-License-Identifier: Apache-2.0
"""The one table from librados' and librbd's errno to the driver's errors.

Errno alone is ambiguous for a load (EINVAL is a missing header, a wrong
format and a wrong number of specs), so the load has a mapping of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Final

import rados
import rbd

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
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
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.errors import UnsupportedError

_BY_ERRNO: Final[Mapping[int, type[DriverError]]] = {
    errno.EPERM: ForbiddenError,
    errno.EACCES: ForbiddenError,
    errno.ENOENT: NotFoundError,
    errno.EEXIST: AlreadyExistsError,
    errno.EBUSY: InUseError,
    errno.EROFS: InUseError,  # another client holds the lock EXCLUSIVE
    errno.ENOTEMPTY: PreconditionError,
    errno.ENOSPC: ExhaustedError,
    errno.EDQUOT: ExhaustedError,
    errno.ETIMEDOUT: UnavailableError,
    errno.ENOTCONN: UnavailableError,
    errno.ECONNREFUSED: UnavailableError,
    errno.ESHUTDOWN: FencedError,
    errno.EOPNOTSUPP: UnsupportedError,
    errno.ENOSYS: UnsupportedError,
    errno.ECANCELED: ConflictError,
    errno.EINVAL: InvalidRequestError,
}

_REMEDIES: Final[Mapping[type[DriverError], str]] = {
    ForbiddenError: "; the Ceph user needs the caps `profile rbd` for mon, mgr and osd",
}

_BY_LOAD_ERRNO: Final[Mapping[int, tuple[type[DriverError], str]]] = {
    errno.EPERM: (SecretError, "a layer's passphrase does not open its header"),
    errno.EINVAL: (
        HeaderError,
        "the image has no LUKS header, or one that does not fit its layers",
    ),
    errno.EOPNOTSUPP: (
        UnsupportedError,
        "the header's cipher is not aes-xts-plain64, or the image is journaled",
    ),
}


@contextlib.contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Turn Ceph's exceptions into the driver's; `doing` opens the message."""
    try:
        yield
    except (rados.Error, rbd.Error) as error:
        raise translate(error, doing) from error


@contextlib.contextmanager
def mapped_load(doing: str) -> Iterator[None]:
    """As `mapped`, for a load: what its errno values mean there."""
    try:
        yield
    except (rados.Error, rbd.Error) as error:
        known = _BY_LOAD_ERRNO.get(number_of(error))
        if known is None:
            raise translate(error, doing) from error
        kind, meaning = known
        message = f"{doing}: {meaning}"
        raise kind(message) from error


def translate(error: Exception, doing: str) -> DriverError:
    """Return the driver's error for one of Ceph's."""
    number = number_of(error)
    kind = _BY_ERRNO.get(number, InternalError)
    text = os.strerror(number) if number else str(error)
    remedy = _REMEDIES.get(kind, "")
    return kind(f"{doing}: {text} (Ceph error {number}){remedy}")


def number_of(error: Exception) -> int:
    """Return the positive errno of an exception of python-rados or python-rbd."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number:
        return abs(number)
    # python-rbd raises InvalidArgument with errno None for its own checks
    return errno.EINVAL if isinstance(error, rbd.InvalidArgument) else 0
