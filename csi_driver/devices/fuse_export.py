# SPDX-License-Identifier: Apache-2.0
"""What an export must offer before nbdfuse may serve it as a disk.

nbdfuse (libnbd 1.14 to 1.22 at least) maps what the loop device asks of its
file: "zero this range" becomes WRITE_ZEROES; if the server does not offer that,
it writes zeros itself, but all to the first 4096 bytes, and reports success
(measured: of 16 blocks one was zero; fuse/operations.c never advances the
offset).  "Punch a hole" becomes TRIM if that is offered, after which the kernel
takes the range for zeros, which NBD does not promise.  fsync does nothing
without FLUSH.  Each of these silently damages filesystems, so a writable export
has to offer WRITE_ZEROES and FLUSH, and must not offer TRIM.

Starting nbdfuse is left to `fuse_loop`.
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote
from urllib.parse import urlencode

from csi_driver.devices import commands
from csi_driver.devices.device import NbdExport
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnavailableError

TOOL: Final = "nbdinfo"

_NEEDED: Final = {"can_zero": "WRITE_ZEROES", "can_flush": "FLUSH"}
_FORBIDDEN: Final = {"can_trim": "TRIM"}


def export_uri(export: NbdExport) -> str:
    """Return the libnbd URI of an export: its name and its unix socket."""
    if export.socket_path is None:
        raise InvalidRequestError(
            f"volume {export.identity} has no unix socket for nbdfuse"
        )
    query = urlencode({"socket": str(export.socket_path)}, quote_via=quote)
    return f"nbd+unix:///{quote(export.name, safe='')}?{query}"


def judge(export: NbdExport, answer: str) -> None:
    """Judge nbdinfo's JSON; pure.

    Raises SizeError when the export is smaller than what is to be shown, and
    InternalError when it offers too little or too much to be safe.
    """
    try:
        (found,) = json.loads(answer)["exports"]
        announced = int(found["export-size"])
        missing = [name for key, name in _NEEDED.items() if not found[key]]
        surplus = [name for key, name in _FORBIDDEN.items() if found[key]]
        frozen = bool(found["is_read_only"])
    except (KeyError, TypeError, ValueError) as error:
        raise InternalError(f"{TOOL} gave no usable answer: {error!r}") from error
    if announced < export.size:
        raise SizeError(
            f"the export of volume {export.identity} announces {announced} bytes, "
            f"less than the {export.size} to be shown"
        )
    if export.read_only:
        return
    if frozen or missing or surplus:
        raise InternalError(
            f"the export of volume {export.identity} cannot be a writable disk: "
            f"read-only {frozen}, missing {missing}, must not offer {surplus}"
        )


def require_safe(export: NbdExport, timeout: float) -> None:
    """Ask the running export what it offers and judge it.

    Raises UnavailableError when it does not answer; else as `judge`.
    """
    completed = commands.run(
        [TOOL, "--json", "--no-content", export_uri(export)], timeout=timeout
    )
    if completed.code:
        raise UnavailableError(
            f"the export of volume {export.identity} does not answer: "
            f"{completed.complaint()}"
        )
    judge(export, completed.output)
