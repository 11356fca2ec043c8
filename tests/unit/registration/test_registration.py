# SPDX-License-Identifier: Apache-2.0
"""The driver as kubelet registers it, through all that may go wrong."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc.registration.standing import Phase
from csi_driver.rpc.registration.standing import Standing
from csi_driver.rpc.registration.standing import State
from csi_driver.rpc.stubs import pluginregistration_pb2 as pb2
from csi_driver.rpc.stubs import pluginregistration_pb2_grpc as pb2_grpc
from csi_driver.testing.kubelet import Kubelet
from csi_driver.testing.kubelet import eventually
from csi_driver.testing.kubelet import which

if TYPE_CHECKING:
    from tests.unit.registration.conftest import Place
    from tests.unit.registration.conftest import Serve

NAME = "csi.example.org"


def current(place: Place) -> tuple[int, int] | None:
    try:
        return which(place.socket)
    except FileNotFoundError:
        return None


def in_phase(standing: Standing, phase: Phase, words: str = "") -> bool:
    return standing.state.phase is phase and words in standing.state.reason


def test_kubelet_registers_the_driver_and_forgets_it_at_the_end(
    serve: Serve, place: Place
) -> None:
    with Kubelet(place.directory).running() as kubelet:
        with serve() as standing:
            eventually("registered", lambda: standing.registered)
            (info,) = kubelet.plugins.values()
            assert (info.type, info.name) == ("CSIPlugin", NAME)
            assert info.endpoint == str(place.endpoint)
            assert list(info.supported_versions) == ["1.0.0"]
            assert kubelet.node_ids == {NAME: "node-7"}
            standing.require_registered()
        eventually("forgotten", lambda: not kubelet.drivers)
        assert not standing.registered
    assert list(place.directory.iterdir()) == []


def test_the_socket_is_root_s_alone_from_its_first_moment(
    serve: Serve, place: Place
) -> None:
    with serve() as standing:
        eventually("offered", lambda: in_phase(standing, Phase.OFFERED))
        mode = place.socket.lstat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert list(place.directory.iterdir()) == [place.socket]


def test_until_kubelet_asks_the_driver_is_not_ready(serve: Serve, place: Place) -> None:
    with serve() as standing:
        eventually("offered", lambda: in_phase(standing, Phase.OFFERED))
        with pytest.raises(PendingError, match="plugins_registry"):
            standing.require_registered()
        with Kubelet(place.directory).running():
            eventually("registered", lambda: standing.registered)


def test_a_restarted_kubelet_is_served_by_the_same_socket(
    serve: Serve, place: Place
) -> None:
    with serve() as standing:
        with Kubelet(place.directory).running() as first:
            eventually("registered", lambda: standing.registered)
        before = which(place.socket)
        with Kubelet(place.directory).running() as second:
            eventually("registered again", lambda: second.drivers == [NAME])
        assert standing.registered
        assert which(place.socket) == before
        assert len(first.asked) == len(second.asked) == 1


def test_a_wiped_directory_gets_its_socket_back(serve: Serve, place: Place) -> None:
    with Kubelet(place.directory).running() as kubelet, serve() as standing:
        for _ in range(3):
            eventually("registered", lambda: standing.registered)
            eventually("known", lambda: kubelet.drivers == [NAME])
            place.socket.unlink()
            eventually("noticed", lambda: not standing.registered)
        eventually("registered again", lambda: standing.registered)


def test_a_socket_put_in_its_place_and_left_is_replaced(
    serve: Serve, place: Place
) -> None:
    with Kubelet(place.directory).running(), serve() as standing:
        eventually("registered", lambda: standing.registered)
        other = place.directory / "other.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(other))
        other.rename(place.socket)
        left_over = which(place.socket)
        eventually("replaced", lambda: current(place) not in {None, left_over})
        eventually("registered again", lambda: standing.registered)


def test_a_left_over_socket_is_no_obstacle(serve: Serve, place: Place) -> None:
    for path in (place.socket, place.directory / f".{NAME}-reg.sock.0"):
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(str(path))
            old.listen()
    with Kubelet(place.directory).running(), serve() as standing:
        eventually("registered", lambda: standing.registered)
        assert list(place.directory.iterdir()) == [place.socket]


def test_a_refusal_is_told_and_tried_again_until_it_is_mended(
    serve: Serve, place: Place
) -> None:
    unreachable = place.endpoint.with_name("nobody.sock")
    with Kubelet(place.directory).running() as kubelet:
        with serve(endpoint=unreachable) as standing:
            eventually("refused", lambda: in_phase(standing, Phase.REFUSED))
            with pytest.raises(UnavailableError, match="kubelet_endpoint") as caught:
                standing.require_registered()
            assert str(unreachable) in str(caught.value)
            assert "plugin registration failed" in str(caught.value)
            first = current(place)
            eventually("made anew", lambda: current(place) not in {None, first})
            place.endpoint.rename(unreachable)
            eventually("registered at last", lambda: standing.registered)
        unreachable.rename(place.endpoint)
        assert len(kubelet.asked) > 2


def test_waits_grow_while_kubelet_refuses(serve: Serve, place: Place) -> None:
    unreachable = place.endpoint.with_name("nobody.sock")
    seen: list[tuple[float, tuple[int, int]]] = []

    def made() -> int:
        found = current(place)
        if found and (not seen or seen[-1][1] != found):
            seen.append((time.monotonic(), found))
        return len(seen)

    with Kubelet(place.directory).running(), serve(endpoint=unreachable):
        eventually("made four times", lambda: made() == 4)
    spans = [after - before for (before, _), (after, _) in itertools.pairwise(seen)]
    assert spans[0] >= 0.4
    assert spans[1] >= 0.8
    assert spans[2] >= 1.6


def test_a_second_driver_of_the_name_is_refused_and_takes_over_later(
    serve: Serve, place: Place
) -> None:
    beside = place.directory / "beside.sock"
    with Kubelet(place.directory).running() as kubelet:
        with serve() as first:
            eventually("registered", lambda: first.registered)
            with serve(socket=beside) as second:
                words = "already registered"
                eventually("refused", lambda: in_phase(second, Phase.REFUSED, words))
                assert first.registered
                assert kubelet.drivers == [NAME]
        with serve(socket=beside) as second:
            eventually("the first is gone", lambda: second.registered)


def test_two_drivers_do_not_fight_for_one_socket(serve: Serve, place: Place) -> None:
    with Kubelet(place.directory).running() as kubelet:
        with serve() as first:
            eventually("registered", lambda: first.registered)
            with serve() as second:
                words = "another process listens"
                eventually("absent", lambda: in_phase(second, Phase.ABSENT, words))
                time.sleep(0.3)
                assert first.registered
                assert len(kubelet.asked) == 1
                second.require_fresh()
        assert not place.socket.exists()


def test_what_is_no_socket_is_left_alone(serve: Serve, place: Place) -> None:
    place.socket.write_text("precious")
    with serve() as standing:
        words = "no socket: remove it"
        eventually("absent", lambda: in_phase(standing, Phase.ABSENT, words))
        assert place.socket.read_text() == "precious"
        place.socket.unlink()
        eventually("offered", lambda: in_phase(standing, Phase.OFFERED))


def test_a_missing_directory_is_not_made_up(serve: Serve, place: Place) -> None:
    place.directory.rmdir()
    with serve() as standing:
        words = "mount /var/lib/kubelet/plugins_registry"
        eventually("absent", lambda: in_phase(standing, Phase.ABSENT, words))
        assert not place.directory.exists()
        place.directory.mkdir()
        eventually("offered", lambda: in_phase(standing, Phase.OFFERED))


def test_a_directory_that_only_a_mount_still_shows_needs_a_restart(
    serve: Serve, place: Place
) -> None:
    """As in a container whose hostPath was removed; here a descriptor shows it."""
    shown = os.open(place.directory, os.O_PATH | os.O_DIRECTORY)
    try:
        path = Path(f"/proc/self/fd/{shown}/{place.socket.name}")
        with serve(socket=path) as standing:
            eventually("offered", lambda: in_phase(standing, Phase.OFFERED))
            standing.require_fresh()
            shutil.rmtree(place.directory)
            words = "restart of this container"
            eventually("absent", lambda: in_phase(standing, Phase.ABSENT, words))
            with pytest.raises(UnavailableError, match=words):
                standing.require_fresh()
    finally:
        os.close(shown)


def test_a_verdict_in_the_moment_of_the_offer_is_kept() -> None:
    standing = Standing()
    before = standing.state
    standing.set(State(Phase.REGISTERED))
    assert not standing.replace(before, State(Phase.OFFERED))
    assert standing.registered


def test_kubelet_s_words_are_one_bounded_line(serve: Serve, place: Place) -> None:
    with serve() as standing:
        eventually("offered", lambda: in_phase(standing, Phase.OFFERED))
        with grpc.insecure_channel(f"unix:{place.socket}") as channel:
            status = pb2.RegistrationStatus(error="no\nnode " * 5000)
            pb2_grpc.RegistrationStub(channel).NotifyRegistrationStatus(status)
        reason = standing.state.reason
        assert standing.state.phase is Phase.REFUSED
        assert "no node no node" in reason
        assert "\n" not in reason
        assert len(reason) < 1500
