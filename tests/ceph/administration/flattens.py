# SPDX-License-Identifier: Apache-2.0
"""A family to flatten, quickly or slowly, and what a flat clone looks like."""

from __future__ import annotations

import subprocess
import time
from typing import Final

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import MIB
from tests.ceph.administration.making import SIZE
from tests.ceph.administration.making import Maker
from tests.ceph.administration.making import pattern

_SLOWLY: Final = "conf_rbd_concurrent_management_ops"

OWN = b"the clone's own".ljust(8192, b"~")
LARGE = 48 * MIB


def words(maker: Maker, record: Record, *more: str) -> list[str]:
    volume_id = str(maker.volume_id(record))
    return ["flatten", volume_id, "--secret-file", str(maker.secret), *more]


def family(
    maker: Maker, size: int = SIZE, object_size: int = 4 * MIB
) -> tuple[Record, bytes]:
    """Make a clone's clone with a write of its own; return its content, too."""
    source = maker.volume("source", size, object_size=object_size)
    middle = maker.clone(source, "middle")
    clone = maker.clone(middle, "clone")
    maker.write(clone, 4 * MIB + 4096, OWN)
    content = bytearray(pattern("source", size))
    content[4 * MIB + 4096 : 4 * MIB + 4096 + len(OWN)] = OWN
    return clone, bytes(content)


def require_flat(maker: Maker, record: Record, content: bytes) -> None:
    """Check image, record, ring and every byte."""
    with maker.pool.open_raw(record.image_id, read_only=True) as image:
        assert image.parent() is None
    found = maker.record(record)
    assert (found.ancestors, found.flatten) == (0, None)
    if record.mode.encrypted:
        assert maker.kind(record) is HeaderKind.LUKS2
        assert found.layers == record.layers[:1]
        needed = {*found.layers, *(key for s in found.snapshots for key in s.layers)}
        assert found.ring is not None
        assert {each.header_uuid for each in found.ring.entries} == needed
    assert maker.content(record) == content
    assert maker.findings(record) == {}


def slow_down(maker: Maker, clone: Record) -> None:
    """Let a flatten take some seconds, one object after the other."""
    with maker.rbd_image(clone) as image:
        image.metadata_set(_SLOWLY, "1")


def at_full_speed(maker: Maker, clone: Record) -> None:
    with maker.rbd_image(clone) as image:
        image.metadata_remove(_SLOWLY)


def await_progress(maker: Maker, clone: Record, process: subprocess.Popen[str]) -> None:
    """Wait until the record tells of a flatten in its midst."""
    deadline = time.monotonic() + 60
    while (work := maker.record(clone).flatten) is None or not work.done:
        assert process.poll() is None, "the flatten ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert 0 < work.done < work.total
