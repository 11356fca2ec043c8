# SPDX-License-Identifier: Apache-2.0
"""A machine that lacks what the driver rests on is told so, not found out later."""

from __future__ import annotations

import traceback
import types
import uuid
from pathlib import Path

import pytest

from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import Layout
from csi_driver.images import headers
from csi_driver.images import probe

DEK = b"canary-canary-canary-canary-0000"


def make_header() -> bytes:
    return headers.make_header(SecretBytes(DEK), uuid.uuid4(), Layout(16 * MIB))


def test_no_cryptsetup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "TOOLS_PATH", str(tmp_path))
    monkeypatch.setattr(probe, "TOOLS_PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="install cryptsetup-bin"):
        probe.probe_cryptsetup()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="install cryptsetup-bin"):
        make_header()


def test_a_cryptsetup_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "cryptsetup"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setattr(headers, "TOOLS_PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(headers, "_TIMEOUT", 0.2)
    with pytest.raises(UnavailableError, match="no header within") as caught:
        make_header()
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_a_librbd_without_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    old = types.SimpleNamespace(Image=object)
    monkeypatch.setattr(probe, "rbd", old)
    with pytest.raises(UnavailableError, match="encryption_load2"):
        probe.probe_library()


def test_this_machine_has_it_all() -> None:
    probe.probe_library()
    probe.probe_cryptsetup()
