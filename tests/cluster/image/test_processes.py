# SPDX-License-Identifier: Apache-2.0
"""How the driver's commands start, end and clean up as containers."""

from __future__ import annotations

import time
from typing import Final

import pytest

from tests.cluster.image.conftest import COMMANDS
from tests.cluster.image.podman import Container
from tests.cluster.image.podman import Podman

_READY: Final = {
    "controller": '"serving"',
    "node": '"serving"',
    "datapath": '"datapath ready"',
}
_GRACE: Final = 25.0
"""Seconds; kubelet kills after 30."""

_PATIENCE: Final = 10.0


def _count(container: Container, pattern: str, file: str) -> int:
    """Count the processes, zombies included, with a line in a file of /proc."""
    script = f"grep -lE '{pattern}' /proc/[0-9]*/{file} 2>/dev/null | wc -l"
    done = container.execute("sh", "-c", script)
    assert done.status == 0, done.errors
    return int(done.output)


def _wait_for_none(container: Container, pattern: str, file: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while found := _count(container, pattern, file):
        assert time.monotonic() < deadline, f"{found} with {pattern} in their {file}"
        time.sleep(0.1)


@pytest.mark.parametrize("words", [["version"], ["--help"], ["volume", "--help"]])
def test_it_runs_where_nothing_can_be_written(
    podman: Podman, image: str, words: list[str]
) -> None:
    # Not even in the places that Podman makes writable by itself.
    done = podman.run("--read-only-tmpfs=false", image, *words)
    assert done.status == 0, done.errors
    assert done.output


def test_without_a_command_it_says_how_it_is_used(podman: Podman, image: str) -> None:
    done = podman.run(image)
    assert done.status == 0
    assert all(command in done.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_config_is_refused_in_one_line(
    podman: Podman, image: str, command: str
) -> None:
    flags = (
        "--env=CSI_ENDPOINT=unix:///run/csi.sock",
        "--env=RBDCRYPT_NODE_ID=node-a",
        "--env=RBDCRYPT_LOG_LEVEL=error",
    )
    done = podman.run(*flags, image, command)
    assert done.status == 1
    assert done.output == ""
    (line,) = done.errors.splitlines()
    assert line.startswith("rbdcrypt-csi: the cluster config /etc/rbdcrypt-csi/")
    assert "RBDCRYPT_CLUSTERS_FILE" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_ends_in_order_when_its_pod_is_deleted(
    podman: Podman, image: str, settings: tuple[str, ...], command: str
) -> None:
    with podman.running(*settings, image, command) as container:
        container.wait_for(_READY[command])
        status, seconds = container.told_to_end()
        assert status == 0, container.logs()
    assert seconds < _GRACE


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_that_is_still_starting_hears_that_it_shall_end(
    podman: Podman, image: str, settings: tuple[str, ...], command: str
) -> None:
    with podman.running(*settings, image, command) as container:
        _, seconds = container.told_to_end()
    assert seconds < _GRACE


def test_the_controller_needs_no_root_no_capability_and_no_place_to_write(
    podman: Podman, image: str, settings: tuple[str, ...]
) -> None:
    sealed = (
        *("--user=65532", "--cap-drop=all", "--security-opt=no-new-privileges"),
        "--read-only-tmpfs=false",  # its socket has a place, in `settings`
    )
    with podman.running(*sealed, *settings, image, "controller") as container:
        container.wait_for(_READY["controller"])
        status, _ = container.told_to_end()
        assert status == 0, container.logs()


def test_what_others_leave_behind_is_collected(
    podman: Podman, image: str, settings: tuple[str, ...]
) -> None:
    with podman.running(*settings, image, "controller") as container:
        container.wait_for(_READY["controller"])
        # The shell ends before its children, which the first process inherits.
        container.execute("sh", "-c", "for i in 1 2 3; do sleep 2 & done")
        assert _count(container, "^sleep$", "comm") == 3
        _wait_for_none(container, "^sleep$", "comm")


def test_a_killed_worker_is_collected(
    podman: Podman, image: str, settings: tuple[str, ...]
) -> None:
    # Written so that the search does not find itself.
    worker = "driver[.]datapath[.]worker"
    with podman.running(*settings, image, "datapath") as container:
        container.wait_for(_READY["datapath"])
        container.wait_for('"event": "worker"')
        find = f"grep -l {worker} /proc/[0-9]*/cmdline | cut -d/ -f3"
        (number,) = container.execute("sh", "-c", find).output.split()
        assert container.execute("sh", "-c", f"kill -9 {number}").status == 0
        _wait_for_none(container, "^State:.Z", "status")
        assert container.execute("test", "-e", f"/proc/{number}").status != 0
        assert container.state()["Running"]
