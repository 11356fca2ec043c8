# SPDX-License-Identifier: Apache-2.0
"""Simple replies, the only kind that the kernel's client understands."""

from __future__ import annotations

import errno
from typing import Final

from csi_driver.nbd.protocol import constants as c

REPLY_SIZE: Final = c.SIMPLE_REPLY.size

# The protocol allows few numbers.  EINVAL is not passed on: requests were
# judged before, so a backend's EINVAL is its own trouble, and a client that
# takes it for a bad request would look in the wrong place.  ENOMEM is discouraged.
_PASSED_ON: Final = {
    errno.EPERM: c.EPERM,
    errno.EROFS: c.EPERM,
    errno.ENOSPC: c.ENOSPC,
    errno.EDQUOT: c.ENOSPC,
    errno.ESHUTDOWN: c.ESHUTDOWN,
}


def simple_reply(cookie: int, error: int = c.OK) -> bytes:
    """Return a reply without data; `error` is a number of the protocol."""
    return c.SIMPLE_REPLY.pack(c.SIMPLE_REPLY_MAGIC, error, cookie)


def write_header(target: memoryview, offset: int, cookie: int) -> None:
    """Put a successful reply's 16 bytes at `offset` of `target`."""
    c.SIMPLE_REPLY.pack_into(target, offset, c.SIMPLE_REPLY_MAGIC, c.OK, cookie)


def error_of(number: int) -> int:
    """Translate a positive errno of a backend; what has no place becomes EIO."""
    return _PASSED_ON.get(number, c.EIO)
