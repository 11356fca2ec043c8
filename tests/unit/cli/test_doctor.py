# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi doctor` as a user meets it, where there is neither Ceph nor pod."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.test_commands import rbdcrypt

NAME = "csi.rbdcrypt.io"


def doctor(
    tmp_path: Path, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    own = {
        "RBDCRYPT_CLUSTERS_FILE": str(tmp_path / "config.json"),
        "RBDCRYPT_RUN_DIR": str(tmp_path / "run"),
        "RBDCRYPT_STATE_DIR": str(tmp_path / "state"),
    }
    return rbdcrypt("doctor", *words, **(own | variables))


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    found = json.loads(done.stdout)
    assert found["ok"] is (done.returncode == 0)
    return {each["check"]: each for each in found["checks"]}


def test_each_check_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--role", "controller")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warning", "failed"}
    (line,) = [each for each in lines if " cluster-config " in each]
    assert line.startswith("failed   cluster-config     ")
    assert "No such file or directory" in line
    assert "RBDCRYPT_CLUSTERS_FILE" in line
    assert not done.stderr


def test_without_an_api_server_that_is_said(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--role", "controller", "--output", "json")
    found = checks(done)["api-server"]
    assert found["status"] == "warning"
    assert "--kubeconfig" in found["remedy"]


@pytest.mark.parametrize(
    ("variables", "role"),
    [
        ({"CSI_ENDPOINT": "unix:///x/csi.sock"}, "controller"),
        (
            {"CSI_ENDPOINT": "unix:///x/csi.sock", "RBDCRYPT_NODE_ID": "worker-1"},
            "node",
        ),
        ({"RBDCRYPT_RUN_DIR": "/tmp"}, "datapath"),
        ({}, "controller"),
    ],
)
def test_the_role_is_found_from_the_settings(
    tmp_path: Path, variables: dict[str, str], role: str
) -> None:
    done = doctor(tmp_path, "--output", "json", **variables)
    assert json.loads(done.stdout)["role"] == role
    assert ("csi-socket" in checks(done)) is ("CSI_ENDPOINT" in variables)


def test_what_the_process_beside_it_serves_is_looked_at(tmp_path: Path) -> None:
    own = {
        "CSI_ENDPOINT": f"unix://{tmp_path}/csi.sock",
        "RBDCRYPT_NODE_ID": "worker-1",
        "RBDCRYPT_HTTP_ADDRESS": "127.0.0.1:1",
        "RBDCRYPT_REGISTRATION_SOCKET": f"{tmp_path}/reg.sock",
        "RBDCRYPT_KUBELET_ENDPOINT": f"{tmp_path}/plugins/{NAME}/csi.sock",
    }
    (tmp_path / "plugins").mkdir()
    found = checks(doctor(tmp_path, "--output", "json", **own))
    for name in ("csi-socket", "registration", "readiness"):
        assert found[name]["status"] == "failed"
    assert found["mount-propagation"]["subject"] == f"{tmp_path}/pods"


def test_roles_look_at_different_things(tmp_path: Path) -> None:
    found = {
        role: checks(doctor(tmp_path, "--role", role, "--output", "json")).keys()
        for role in ("controller", "node", "datapath")
    }
    assert "cryptsetup" in found["controller"]
    assert {"tools", "ext4-growth", "datapath", "state-dir"} <= found["node"]
    assert {"device-method", "run-dir"} <= found["datapath"]
    for each in found.values():
        assert {"version", "librbd", "key-protection", "cluster-config"} <= each
    assert "device-method" not in found["node"]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--role", "driver"], 1, "not one of controller, node, datapath"),
        (["--output", "yaml"], 1, "table, json"),
        (["--device-method", "magic"], 2, "RBDCRYPT_DEVICE_METHOD"),
        (["--nonsense"], 2, "No such option"),
    ],
)
def test_what_is_asked_wrongly(
    tmp_path: Path, words: list[str], status: int, text: str
) -> None:
    done = doctor(tmp_path, *words)
    assert done.returncode == status
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_config_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    found = checks(doctor(tmp_path, "--output", "json"))["cluster-config"]
    assert "non-empty array" in found["found"]
