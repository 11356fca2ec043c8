# SPDX-License-Identifier: Apache-2.0
"""Trying to load a volume's head and each of its snapshots with its Secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import UnavailableError
from csi_driver.images.port import Pool
from csi_driver.provisioning.finding import Finding
from csi_driver.provisioning.header_findings import title
from csi_driver.provisioning.inspection import Inspection
from csi_driver.provisioning.unlocking import Keys
from csi_driver.provisioning.unlocking import unlocked

_PROBE: Final = 4096


def try_loading(
    pool: Pool, seen: Inspection, secrets: Mapping[str, str]
) -> list[Finding]:
    """Load everything read-only; return what does not load.

    SecretError if the Secret is not the volume's, before anything is loaded.
    """
    with unlocked(seen.record, secrets) as keys:
        found = _try(pool, keys, "its head", 0)
        for each in seen.snapshots:
            what = f"snapshot {title(seen, each)!r}"
            found += _try(pool, keys, what, each.found.number)
    return found


def _try(pool: Pool, keys: Keys, what: str, snapshot: int) -> list[Finding]:
    try:
        with keys.open(pool, read_only=True, snapshot=snapshot) as content:
            content.image.read(0, min(_PROBE, keys.record.actual.count))
    except UnavailableError:
        raise
    except DriverError as error:
        return [
            Finding(
                "load-failed",
                f"{what} does not load: {error}",
                "the other findings say why, if the Secret is the volume's own",
            )
        ]
    return []
