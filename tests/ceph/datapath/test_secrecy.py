# SPDX-License-Identifier: Apache-2.0
"""A canary key, and every place on this machine where it must not appear."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.domain.errors import SecretError

if TYPE_CHECKING:
    from tests.ceph.datapath.running import Running
    from tests.ceph.datapath.running import Volume

WRONG = b"canary-canary-canary-canary-0123"


def processes() -> Iterator[bytes]:
    """Yield the command line and environment of every process."""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                yield (process / name).read_bytes()


def forms(secret: bytes) -> tuple[bytes, ...]:
    return (
        secret,
        base64.b64encode(secret),
        secret.hex().encode(),
        repr(secret)[2:-1].encode(),
    )


def test_keys_are_nowhere_to_be_found(datapath: Running, volume: Volume) -> None:
    with pytest.raises(SecretError):
        datapath.client.open(volume.request(dek=WRONG))
    datapath.client.open(volume.request())
    cephx = Path(volume.config.key_file).read_bytes().strip()
    places = [*processes(), datapath.log.encode()]
    run, state = datapath.directory / "run", datapath.directory / "state"
    files = [path for path in (*run.glob("*"), *state.iterdir()) if path.is_file()]
    places += [path.read_bytes() for path in files]
    assert datapath.state_files
    worker = datapath.worker_pid(volume)
    assert any(b"csi_driver.datapath.worker" in place for place in places)
    for secret in (WRONG, volume.dek, cephx):
        for form in forms(secret):
            assert not any(form in place for place in places)
    for pid in (worker, datapath.process.pid):
        limits = Path(f"/proc/{pid}/limits").read_text()
        (core,) = (line for line in limits.splitlines() if "core file" in line)
        assert core.split()[4:6] == ["0", "0"]
        status = Path(f"/proc/{pid}/status").read_text()
        (locked,) = (line for line in status.splitlines() if "VmLck:" in line)
        assert int(locked.split()[1]) > 1024  # kB
