# SPDX-License-Identifier: Apache-2.0
"""The socket: its address, its mode, and what may stand in its place."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc.endpoint import clear
from csi_driver.rpc.endpoint import parse_endpoint


@pytest.mark.parametrize(
    "text",
    ["unix:///run/csi/csi.sock", "unix:/run/csi/csi.sock", "UNIX:///run/csi/csi.sock"],
)
def test_the_spellings_of_an_endpoint(text: str) -> None:
    assert parse_endpoint(text) == Path("/run/csi/csi.sock")


def test_a_relative_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_endpoint("unix://csi.sock") == tmp_path / "csi.sock"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/run/csi.sock",
        "tcp://0.0.0.0:1",
        "unix:///run/csi",
        f"unix:///{'x' * 104}.sock",
    ],
    ids=["empty", "bare", "tcp", "ending", "long"],
)
def test_other_endpoints_are_refused_with_the_text(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="CSI_ENDPOINT"):
        parse_endpoint(text)


def test_a_left_over_socket_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
        old.listen()
    assert path.exists()
    clear(path)
    assert not path.exists()


def test_a_socket_with_a_listener_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(UnavailableError, match="another process"):
            clear(path)
        assert path.exists()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    path.write_text("precious")
    with pytest.raises(UnavailableError, match="no socket"):
        clear(path)
    assert path.read_text() == "precious"


def test_the_directory_is_made(tmp_path: Path) -> None:
    clear(tmp_path / "deep" / "er" / "csi.sock")
    assert (tmp_path / "deep" / "er").is_dir()


def test_the_server_s_socket_is_private_and_alone(serving: Any) -> None:
    mode = serving.socket.lstat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    assert list(serving.socket.parent.iterdir()) == [serving.socket]


def test_grpc_s_fork_handlers_are_off_before_it_is_imported() -> None:
    script = (
        "import os, sys; import csi_driver.rpc; assert 'grpc' not in sys.modules;"
        "print(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
