# SPDX-License-Identifier: Apache-2.0
"""The listening socket and what may stand in its place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from csi_driver.domain.errors import PreconditionError
from csi_driver.nbd.listener import listen


def test_nobody_else_may_connect(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with listen(tmp_path / "s"):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    finally:
        os.umask(old)


def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    listen(tmp_path / "s").close()
    assert (tmp_path / "s").exists()
    listen(tmp_path / "s").close()


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    with (
        listen(tmp_path / "s"),
        pytest.raises(PreconditionError, match="another server"),
    ):
        listen(tmp_path / "s")


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(PreconditionError, match="not a socket"):
        listen(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="No such file"):
        listen(tmp_path / "missing" / "s")
