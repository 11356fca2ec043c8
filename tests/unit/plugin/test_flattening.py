# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt flatten`: the Secret by stdin, Ctrl-C, and the driver's words."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.unit.plugin.answers import FIRST
from tests.unit.plugin.cluster import ROOT
from tests.unit.plugin.cluster import Cluster

ATTENDANT: Final = Path(__file__).with_name("attendant.py")
PASSPHRASE: Final = "canary passphrase"
FORBIDDEN: Final = 'Error from server (Forbidden): secrets "key" is forbidden: User'

type Play = Callable[[str], None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "attendant"
    made.mkdir()
    return made


@pytest.fixture
def play(cluster: Cluster, home: Path) -> Play:
    """Say how the flatten in the pod goes."""

    def choose(how: str) -> None:
        cluster.pods["*"] = {
            "run": [sys.executable, str(ATTENDANT), how],
            "environment": {"ATTENDANT": str(home), "PYTHONPATH": str(ROOT)},
        }

    return choose


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_the_secret_goes_to_the_driver_by_stdin_alone(
    cluster: Cluster, play: Play, home: Path
) -> None:
    play("quick")
    cluster.claim("data", FIRST, secret="key")
    values = {"encryptionPassphrase": PASSPHRASE, "encryptionPassphrase.1": "old"}
    cluster.secret("key", {**values, "userKey": "of Ceph", "other": "x"})
    done = cluster.run("flatten", "data")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "shop/data: flattened; it has no parent any more\n"
    # Only what opens the volume leaves the workstation.
    assert json.loads((home / "line").read_text()) == {
        "kind": "Secret",
        "data": {name: encoded(value) for name, value in values.items()},
    }
    (command,) = cluster.execs
    assert command[1:5] == ["volume", "flatten", FIRST, "--attended"]
    everything = json.dumps(cluster.calls) + done.stdout + done.stderr
    assert PASSPHRASE not in everything
    assert encoded(PASSPHRASE) not in everything


def test_a_key_of_random_bytes_does_as_well(
    cluster: Cluster, play: Play, home: Path
) -> None:
    play("quick")
    cluster.claim("data", FIRST, secret="key")
    cluster.secret("key", {"encryptionKey": "A" * 43 + "="})
    done = cluster.run("flatten", "data", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "apiVersion": "kubectl.rbdcrypt.io/v1",
        "kind": "FlattenResult",
        "namespace": "shop",
        "claim": "data",
        "volumeID": FIRST,
        "depth": 0,
    }
    assert "encryptionKey" in (home / "line").read_text()


def test_a_secret_that_the_class_names_is_taken_first(
    cluster: Cluster, play: Play, home: Path
) -> None:
    play("quick")
    told = {"passphraseSecretNamespace": "shop", "passphraseSecretName": "named"}
    cluster.claim("data", FIRST, secret="key", volumeAttributes=told)
    cluster.secret("named", {"encryptionPassphrase": PASSPHRASE})
    assert cluster.run("flatten", "data").returncode == 0
    assert encoded(PASSPHRASE) in (home / "line").read_text()


def test_a_plaintext_volume_needs_none(
    cluster: Cluster, play: Play, home: Path
) -> None:
    play("quick")
    cluster.claim("data", FIRST)
    assert cluster.run("flatten", "data").returncode == 0
    assert not (home / "line").read_text()
    assert "--secret-file=-" not in cluster.execs[0]


def test_the_driver_says_who_has_the_volume(cluster: Cluster, play: Play) -> None:
    play("refuse")
    cluster.claim("data", FIRST)
    done = cluster.run("flatten", "data")
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr == "error: volume 'pvc-1' is staged on node worker-1\n"


@pytest.mark.parametrize(
    ("values", "refuse", "expected"),
    [
        (None, {}, "Secret shop/key, which opens the volume, does not exist: create"),
        (
            {"encryptionKey": "x"},
            {"secrets": FORBIDDEN},
            "you may not read Secret shop/key, which opens the volume: have somebody",
        ),
        (
            {"password": "x"},
            {},
            "Secret shop/key holds neither encryptionPassphrase nor encryptionKey: it",
        ),
    ],
    ids=["absent", "forbidden", "useless"],
)
def test_a_secret_that_cannot_be_had(
    cluster: Cluster,
    play: Play,
    values: dict[str, str] | None,
    refuse: dict[str, str],
    expected: str,
) -> None:
    play("quick")
    cluster.claim("data", FIRST, secret="key")
    if values is not None:
        cluster.secret("key", values)
    cluster.refuse = refuse
    done = cluster.run("flatten", "data")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {expected}")
    assert not cluster.execs


def test_what_the_command_says_meanwhile_is_shown(cluster: Cluster, play: Play) -> None:
    play("quick")
    cluster.claim("data", FIRST)
    done = cluster.run("flatten", "data")
    assert done.stderr == "waiting for 127.0.0.1:0/7 to end\n"


@contextlib.contextmanager
def begun(cluster: Cluster, home: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a flatten in a process group of its own, as a shell does."""
    with subprocess.Popen(
        # A shell's background job ignores SIGINT, and hands that on.
        ["env", "--default-signal=INT", *cluster.command("flatten", "data")],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        await_file(home / "begun")
        yield process
        process.kill()


def await_file(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.01)


def test_ctrl_c_lets_go_in_the_pod(cluster: Cluster, play: Play, home: Path) -> None:
    play("slow")
    cluster.claim("data", FIRST)
    with begun(cluster, home) as process:
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert not output
    assert errors.splitlines()[1:] == [
        "asking the command in the pod to let go of the volume",
        (
            "error: interrupted: the volume is as usable as before, and the same"
            " command goes on with what is left"
        ),
    ]
    assert (home / "end").read_text() == "let go"


def test_the_second_ctrl_c_does_not_wait(
    cluster: Cluster, play: Play, home: Path
) -> None:
    play("deaf")
    cluster.claim("data", FIRST)
    with begun(cluster, home) as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert next(line for line in lines if line.startswith("asking"))
        os.killpg(process.pid, signal.SIGINT)
        last = next(lines)
        assert process.wait(timeout=30) == 130
    assert last.startswith("error: given up: the command in the pod may still be at")


def test_a_plugin_that_is_killed_leaves_nothing_at_work(
    cluster: Cluster, play: Play, home: Path
) -> None:
    play("slow")
    cluster.claim("data", FIRST)
    with begun(cluster, home) as process:
        process.kill()
        await_file(home / "end")


def test_a_connection_that_breaks_is_no_success(
    cluster: Cluster, play: Play, home: Path
) -> None:
    cluster.claim("data", FIRST)
    errors = "error: unexpected EOF\n"
    cluster.answers("volume flatten", "", broken=True, errors=errors)
    done = cluster.run("flatten", "data")
    assert done.returncode == 1
    assert "unexpected EOF" in done.stderr.splitlines()[-1]


def test_an_end_without_a_result_is_no_success(cluster: Cluster) -> None:
    cluster.claim("data", FIRST)
    cluster.answers("volume flatten", '{"progress": {"done": 1, "total": 2}}\n')
    done = cluster.run("flatten", "data")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")


def test_a_kubectl_that_is_killed_is_no_success(
    cluster: Cluster, play: Play, home: Path
) -> None:
    play("slow")
    cluster.claim("data", FIRST)
    with begun(cluster, home) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        (child,) = children.read_text(encoding="ascii").split()
        # With it goes what the real one has at the other end of a connection.
        os.killpg(int(child), signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "error: kubectl was ended by signal 9 while a command ran in" in errors
