# SPDX-License-Identifier: Apache-2.0
"""Sizes that do not fit their record, and what that says of who changed them."""

from __future__ import annotations

from csi_driver.domain.quantities import show_size
from csi_driver.domain.sizes import Layout
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.provisioning.finding import Finding
from csi_driver.provisioning.header_findings import title
from csi_driver.provisioning.inspection import Inspection


def about(seen: Inspection) -> list[Finding]:
    """Return the findings about the sizes of head and snapshots."""
    found = [*_offset(seen), *_head(seen)]
    for each in seen.snapshots:
        known = seen.record.snapshot_numbered(each.found.number)
        if known is None or known.state is not SnapshotState.READY:
            continue
        expected = seen.record.layout.raw(known.size)
        if each.found.size < expected:
            found.append(
                Finding(
                    "snapshot-size",
                    f"snapshot {title(seen, each)!r} has {each.found.size}, its"
                    f" {known.size} take {expected}",
                    "the end of what it exported is not there",
                )
            )
    return found


def _offset(seen: Inspection) -> list[Finding]:
    """Compare where the header says that the data begin with the record."""
    header = seen.chain.own.header
    reserve = seen.record.layout.reserve
    if not header.kind.encrypted or header.damage or header.data_offset == reserve:
        return []
    return [
        Finding(
            "offset-differs",
            f"the header puts the data {header.data_offset} bytes behind the start,"
            f" the record {reserve}: the header is not the one that the volume was"
            " made with",
            "nothing is known to be lost; do not write to it before the right"
            " header is back",
        )
    ]


def _head(seen: Inspection) -> list[Finding]:
    record = seen.record
    raw = seen.chain.own.raw
    actual, desired = (
        record.layout.raw(record.actual),
        record.layout.raw(record.desired),
    )
    if raw == actual:
        if record.desired == record.actual:
            return []
        return [
            Finding(
                "growth-pending",
                f"{record.desired} were promised, {record.actual} are there",
                "the next writable stage grows it",
                wrong=False,
            )
        ]
    if raw == desired:
        return [
            Finding(
                "growth-unrecorded",
                f"the image has grown to {raw}, and the record still says"
                f" {record.actual}",
                "the next writable stage records it",
                wrong=False,
            )
        ]
    shift = _shift(record.layout, raw.count, {actual.count, desired.count})
    if shift:
        return [shift]
    if raw > actual:
        return [
            Finding(
                "size-larger",
                f"the image has {raw}, the record asks for {actual}: it was resized"
                " by other means, or a shrink was interrupted",
                "nothing is lost; `rbdcrypt-csi volume shrink` to"
                f" {record.actual.count} ends an interrupted shrink",
            )
        ]
    return [
        Finding(
            "size-smaller",
            f"the image has {raw}, the record asks for {actual}: the last"
            f" {show_size(actual.count - raw.count)} were cut off by other means",
            "what was there is lost in the head; a snapshot that is older has it."
            " Growing the image does not bring it back",
        )
    ]


def _shift(layout: Layout, raw: int, expected: set[int]) -> Finding | None:
    """Recognise a resize whose number was read on the other side of the header."""
    reserve = layout.reserve
    if reserve and raw - reserve in expected:
        return Finding(
            "size-shifted",
            f"the image is larger by just the data offset of {reserve} bytes: a"
            " resize that was asked for in raw bytes was carried out by a client"
            " that had the encryption loaded",
            "nothing is lost, the surplus is at the end; the next writable stage"
            " takes it away, or `rbdcrypt-csi volume shrink` to the recorded size",
        )
    if reserve and raw + reserve in expected:
        return Finding(
            "size-shifted",
            f"the image is smaller by just the data offset of {reserve} bytes: a"
            " resize that was asked for in exported bytes was carried out raw",
            "if it was to grow, nothing is lost and the next writable stage grows"
            f" it; otherwise the last {show_size(reserve)} are cut off, and a"
            " snapshot that is older has them",
        )
    return None
