# SPDX-License-Identifier: Apache-2.0
"""Which version of this package is installed."""

from __future__ import annotations

import importlib.metadata
from typing import Final

from csi_driver.domain.errors import InvalidRequestError

_DISTRIBUTION: Final = "rbdcrypt-csi"


def version() -> str:
    """Return the version of the installed package.

    InvalidRequestError where the source is run without having been installed.
    """
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        message = f"the package {_DISTRIBUTION} is not installed: pip install -e ."
        raise InvalidRequestError(message) from None
