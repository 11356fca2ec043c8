# SPDX-License-Identifier: Apache-2.0
"""Changing a volume's I/O limits: in its record, then in librbd's settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from csi_driver.domain.record import Record
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record


def change_limits(pool: Pool, image_id: str, mutable: Mapping[str, str]) -> Record:
    """Change what a request names; the worker's librbd obeys within a second.

    The record is changed first: a repeated call brings the settings in line.
    InvalidRequestError if any of it is not understood, and nothing changes.
    """

    def changed(present: Record) -> Record:
        present.require_ready()
        return dataclasses.replace(present, limits=present.limits.changed_by(mutable))

    record = change_record(pool, image_id, changed)
    with pool.open_raw(image_id) as image:
        present = image.settings()
        for name, value in record.limits.settings().items():
            if present.get(name) != value:
                image.change_setting(name, value)
    return record
