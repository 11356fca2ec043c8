# SPDX-License-Identifier: Apache-2.0
"""The command line as a user meets it: help, one line per failure, exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csi_driver import settings

ROOT = Path(__file__).resolve().parents[3]


def rbdcrypt(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "COLUMNS": "100",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    return subprocess.run(
        [sys.executable, "-m", "csi_driver", *map(str, words)],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_names_every_command() -> None:
    done = rbdcrypt("--help")
    assert done.returncode == 0
    for command in (
        *("controller", "node", "datapath", "doctor", "version", "volume"),
    ):
        assert command in done.stdout.split()


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("controller", settings.ControllerSettings),
        ("node", settings.NodeSettings),
        ("datapath", settings.DatapathSettings),
    ],
)
def test_every_setting_is_a_flag_and_names_its_variable(
    command: str, kind: type[settings.Settings]
) -> None:
    done = rbdcrypt(command, "--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for name in kind.model_fields:
        assert f"--{name.replace('_', '-')} " in text
        assert f"({settings.variable(name)})" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["controller"], "set CSI_ENDPOINT or give --endpoint"),
        (["node", "--endpoint", "unix:///x/csi.sock"], "RBDCRYPT_NODE_ID"),
        (["node", "--log-level", "loud"], "RBDCRYPT_LOG_LEVEL"),
        (["volume", "list", "--clusters-file", "x"], "absolute"),
    ],
    ids=["endpoint", "node id", "log level", "path"],
)
def test_wrong_settings_are_one_line_and_status_2(words: list[str], text: str) -> None:
    done = rbdcrypt(*words)
    assert done.returncode == 2
    assert not done.stdout
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("rbdcrypt-csi: ")


def test_an_unknown_flag_is_status_2() -> None:
    assert rbdcrypt("node", "--nonsense").returncode == 2


def test_a_command_that_needs_ceph_fails_in_one_line(tmp_path: Path) -> None:
    done = rbdcrypt("volume", "list", "--clusters-file", tmp_path / "none.json")
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_no_command_loads_what_only_others_need() -> None:
    script = (
        "import sys; import csi_driver.cli;"
        "print(sorted({'grpc', 'kubernetes', 'prometheus_client', 'rbd', 'structlog'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
