# SPDX-License-Identifier: Apache-2.0
"""What kubelet and Prometheus read of each process, over real HTTP and sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csi_driver.commands import watching
from csi_driver.datapath.messages import ExportStatus
from csi_driver.datapath.supervisor import Supervisor
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.notices import Claim
from csi_driver.domain.notices import Happening
from csi_driver.domain.notices import Notice
from csi_driver.kube.claims import Claims
from csi_driver.kube.event_objects import Reporter
from csi_driver.kube.events import Events
from csi_driver.nbd.listener import listen
from csi_driver.provisioning.tally import Tallies
from csi_driver.rpc.health import Health
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.identity import Plugin
from csi_driver.rpc.recorder import NoRecorder
from csi_driver.rpc.recorder import Recorder
from csi_driver.rpc.registration.standing import Phase
from csi_driver.rpc.registration.standing import Standing
from csi_driver.rpc.registration.standing import State
from csi_driver.rpc.server import CsiServer
from csi_driver.rpc.server import Services
from csi_driver.settings import ControllerSettings
from csi_driver.settings import DatapathSettings
from csi_driver.settings import NodeSettings
from csi_driver.settings import load

type Page = tuple[int, list[str]]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Give a directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="health-") as directory:
        yield Path(directory)


@pytest.fixture
def settings(scratch: Path) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return {
        "endpoint": f"unix://{scratch}/csi.sock",
        "node_id": "node-1",
        "run_dir": str(scratch / "run"),
        "http_address": address,
    }


def read(settings: dict[str, str], path: str) -> Page:
    url = f"http://{settings['http_address']}{path}"
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode().splitlines()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().splitlines()


@contextlib.contextmanager
def csi(scratch: Path, health: Health, recorder: Recorder) -> Iterator[CsiServer]:
    identity = Identity(Plugin("csi.example.org", "1"), health)
    services = Services(identity=identity)
    server = CsiServer(scratch / "csi.sock", services, recorder=recorder)
    server.start()
    try:
        yield server
    finally:
        server.stop(1)


class NoExports:
    """A datapath in which nothing is open."""

    calls = 0
    spares = 1

    def status(
        self, volume_id: VolumeId | None, seconds: float = 1
    ) -> tuple[ExportStatus, ...]:
        return ()


@contextlib.contextmanager
def control_socket(settings: dict[str, str]) -> Iterator[None]:
    """Answer on a datapath's control socket."""
    directory = Path(settings["run_dir"])
    directory.mkdir(exist_ok=True)
    stop = os.eventfd(0)
    exports: Any = NoExports()
    path = directory / "datapath.sock"
    with listen(path) as listener:
        supervisor = Supervisor(exports, allowed_uid=os.getuid())
        thread = threading.Thread(target=supervisor.run, args=(listener, stop))
        thread.start()
        try:
            yield
        finally:
            os.eventfd_write(stop, 1)
            thread.join()
            os.close(stop)
    path.unlink()


def test_a_controller_lives_from_its_socket_on_and_is_ready_after_its_probe(
    settings: dict[str, str], scratch: Path
) -> None:
    health = Health()
    with watching.controller(
        load(ControllerSettings, settings), None, Tallies
    ) as recorder:
        status, lines = read(settings, "/healthz")
        assert status == 503
        assert lines[0].startswith(f"failed probe: Probe at {scratch}/csi.sock")
        with csi(scratch, health, recorder):
            assert read(settings, "/healthz") == (200, ["ok probe"])
            status, lines = read(settings, "/readyz")
            assert (status, lines) == (503, ["failed probe: it is still starting"])
            health.check(lambda: None)
            assert read(settings, "/readyz") == (200, ["ok probe"])
            status, lines = read(settings, "/metrics")
            assert status == 200
            calls = [line for line in lines if 'method="Probe"' in line]
            assert any("rbdcrypt_rpc_calls_total" in line for line in calls)
            assert any(line.startswith("rbdcrypt_build_info") for line in lines)
            assert 'rbdcrypt_collector_total{did="given_up"} 0.0' in lines
            assert not any("kubelet" in line for line in lines)
        assert read(settings, "/healthz")[0] == 503


def test_a_process_that_cannot_work_lives_and_is_not_ready(
    settings: dict[str, str], scratch: Path
) -> None:
    def broken() -> None:
        message = "this machine's librbd lacks LUKS"
        raise UnavailableError(message)

    health = Health()
    health.check(broken)
    with (
        watching.controller(
            load(ControllerSettings, settings), None, Tallies
        ) as recorder,
        csi(scratch, health, recorder),
    ):
        assert read(settings, "/healthz") == (200, ["ok probe"])
        status, lines = read(settings, "/readyz")
        assert (status, lines) == (
            503,
            ["failed probe: this machine's librbd lacks LUKS"],
        )


def test_a_node_is_ready_with_its_datapath_and_its_kubelet(
    settings: dict[str, str], scratch: Path
) -> None:
    settings |= {"registration_socket": str(scratch / "x-reg.sock")}
    health, standing = Health(), Standing()
    health.check(lambda: None)
    with (
        watching.node(load(NodeSettings, settings), standing, None) as recorder,
        csi(scratch, health, recorder),
    ):
        standing.set(State(Phase.REFUSED, "kubelet says no"))
        status, lines = read(settings, "/readyz")
        assert status == 503
        assert lines[0] == "ok probe"
        assert lines[1].startswith("failed datapath: the datapath does not answer at")
        assert lines[2] == "failed registration: kubelet says no"
        assert "rbdcrypt_kubelet_registered 0.0" in read(settings, "/metrics")[1]
        alive = (200, ["ok probe", "ok registration"])
        assert read(settings, "/healthz") == alive
        standing.set(State(Phase.REGISTERED))
        with control_socket(settings):
            status, lines = read(settings, "/readyz")
            assert (status, lines) == (
                200,
                ["ok probe", "ok datapath", "ok registration"],
            )
        assert "rbdcrypt_kubelet_registered 1.0" in read(settings, "/metrics")[1]
        standing.set(State(Phase.ABSENT, "restart me", stale=True))
        status, lines = read(settings, "/healthz")
        assert (status, lines[1]) == (503, "failed registration: restart me")


def test_a_node_that_registers_itself_nowhere_is_ready_without(
    settings: dict[str, str], scratch: Path
) -> None:
    health = Health()
    health.check(lambda: None)
    with (
        watching.node(load(NodeSettings, settings), Standing(), None) as recorder,
        csi(scratch, health, recorder),
        control_socket(settings),
    ):
        assert read(settings, "/readyz") == (200, ["ok probe", "ok datapath"])
        assert not any("kubelet" in line for line in read(settings, "/metrics")[1])


@pytest.mark.parametrize("kind", ["controller", "node"])
def test_what_became_of_the_events_is_counted(
    settings: dict[str, str], kind: str
) -> None:
    writer: Any = None
    events = Events(
        writer,
        Claims("csi.example.org", writer, lambda _: ""),
        Reporter("csi.example.org", "here"),
        most_waiting=1,
    )
    for _ in range(2):  # nobody posts them: one waits, one is dropped
        events.tell(Notice(Happening.FLATTENED, Claim("tenant", "data"), "flat"))
    shown = (
        watching.controller(load(ControllerSettings, settings), events, Tallies)
        if kind == "controller"
        else watching.node(load(NodeSettings, settings), Standing(), events)
    )
    with shown:
        lines = read(settings, "/metrics")[1]
    assert 'rbdcrypt_events_total{fate="dropped"} 1.0' in lines
    assert 'rbdcrypt_events_total{fate="posted"} 0.0' in lines


def test_a_datapath_lives_while_its_control_socket_answers(
    settings: dict[str, str],
) -> None:
    exports: Any = NoExports()
    with watching.datapath(load(DatapathSettings, settings), exports):
        status, lines = read(settings, "/healthz")
        assert status == 503
        assert "No such file" in lines[0]
        with control_socket(settings):
            for path in ("/healthz", "/readyz"):
                assert read(settings, path) == (200, ["ok datapath"])
            lines = read(settings, "/metrics")[1]
            assert "rbdcrypt_datapath_spare_workers 1.0" in lines


def test_a_control_socket_that_hangs_is_not_waited_for(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "ANSWER_SECONDS", 0.3)
    exports: Any = NoExports()
    directory = Path(settings["run_dir"])
    directory.mkdir()
    with (
        watching.datapath(load(DatapathSettings, settings), exports),
        socket.socket(socket.AF_UNIX) as silent,
    ):
        silent.bind(str(directory / "datapath.sock"))
        silent.listen()
        begin = time.monotonic()
        status, lines = read(settings, "/healthz")
        assert time.monotonic() - begin < 3
        assert status == 503
        assert "does not answer" in lines[0]


def test_without_an_address_nothing_is_counted_or_served(
    settings: dict[str, str],
) -> None:
    given = settings | {"http_address": ""}
    exports: Any = NoExports()
    with (
        watching.controller(
            load(ControllerSettings, given), None, Tallies
        ) as controller,
        watching.node(load(NodeSettings, given), Standing(), None) as node,
        watching.datapath(load(DatapathSettings, given), exports),
    ):
        assert isinstance(controller, NoRecorder)
        assert isinstance(node, NoRecorder)
        with pytest.raises(urllib.error.URLError):
            read(settings, "/healthz")


def test_a_taken_port_is_refused_with_the_name_of_the_setting(
    settings: dict[str, str],
) -> None:
    host, _, port = settings["http_address"].partition(":")
    exports: Any = NoExports()
    for shown in (
        watching.controller(load(ControllerSettings, settings), None, Tallies),
        watching.node(load(NodeSettings, settings), Standing(), None),
        watching.datapath(load(DatapathSettings, settings), exports),
    ):
        with (
            socket.create_server((host, int(port))),
            pytest.raises(UnavailableError) as caught,
            shown,
        ):
            pass
        assert f"{host}:{port}: Address already in use" in str(caught.value)
        assert "RBDCRYPT_HTTP_ADDRESS" in str(caught.value)
        assert "httpPort" in str(caught.value)


def test_a_failure_inside_is_not_taken_for_one_of_the_port(
    settings: dict[str, str],
) -> None:
    with (
        pytest.raises(UnavailableError, match=r"\ACeph is away\Z"),
        watching.controller(load(ControllerSettings, settings), None, Tallies),
    ):
        raise UnavailableError("Ceph is away")
