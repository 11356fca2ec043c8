# SPDX-License-Identifier: Apache-2.0
"""A node service and a datapath of different versions, whichever is the newer.

The other side is written down here as text, as it was or may become: the messages of
this tree would change with it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest

from csi_driver.datapath import codec
from csi_driver.datapath import envelope
from csi_driver.datapath import wire
from csi_driver.datapath.client import Datapath
from csi_driver.datapath.messages import MIN_VERSION
from csi_driver.datapath.messages import VERSION
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import Fenced
from csi_driver.datapath.messages import Open
from csi_driver.datapath.messages import Opened
from csi_driver.datapath.messages import OpenedVolume
from csi_driver.datapath.messages import Ping
from csi_driver.datapath.supervisor import Supervisor
from csi_driver.devices.device import Device
from csi_driver.devices.device import DeviceKind
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import SkewError
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.nbd.listener import listen

if TYPE_CHECKING:
    from tests.unit.datapath.conftest import MakeVolume
    from tests.unit.datapath.conftest import Node

type Fields = dict[str, Any]
type Answering = Callable[[Fields], tuple[str, int, Fields]]
"""From a request's envelope to kind, version and fields of an answer."""

VOLUME_ID: Fields = {
    "location": {"cluster": "lab", "pool_id": 1, "namespace": "tenant"},
    "image_id": "abc123",
}
DEVICE: Fields = {
    "path": "/dev/nbd7",
    "kind": "kernel",
    "identity": "v1",
    "read_only": False,
    "process": None,
}
STATUS: Fields = {
    "volume_id": VOLUME_ID,
    "alive": True,
    "reason": "",
    "device": DEVICE,
    "size": {"count": 4096},
    "read_only": False,
    "worker_pid": 7,
    "counters": None,
}
OPENED: Fields = {"device": DEVICE, "size": {"count": 4096}, "client_address": "a"}


def frame(kind: str, version: int, fields: Fields, **more: Any) -> bytes:
    text = json.dumps(
        {"version": version, "kind": kind, "secrets": [], "fields": fields, **more}
    ).encode()
    return len(text).to_bytes(4) + bytes(4) + text


def read_frame(sock: socket.socket) -> Fields:
    def exactly(count: int) -> bytes:
        return sock.recv(count, socket.MSG_WAITALL) if count else b""

    lengths = exactly(8)
    text = exactly(int.from_bytes(lengths[:4]))
    exactly(int.from_bytes(lengths[4:]))
    found: Fields = json.loads(text)
    return found


class OtherDatapath:
    """A datapath of another version, with what it was asked."""

    def __init__(self, path: Path, answering: Answering) -> None:
        self._answering = answering
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self.asked: list[Fields] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                self.asked.append(read_frame(client))
                client.sendall(frame(*self._answering(self.asked[-1])))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


type MakeDatapath = Callable[[Answering], tuple[Datapath, OtherDatapath]]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[MakeDatapath]:
    made: list[OtherDatapath] = []

    def make(answering: Answering) -> tuple[Datapath, OtherDatapath]:
        path = tmp_path / "other.sock"
        made.append(OtherDatapath(path, answering))
        return Datapath(path), made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def asked(node: Node, tmp_path: Path) -> Iterator[Callable[[bytes], Fields]]:
    """Let our datapath answer a frame of another node service."""
    path, stop = tmp_path / "datapath.sock", os.eventfd(0)
    with listen(path) as listener:
        supervisor = Supervisor(node.exports, allowed_uid=os.getuid())
        thread = threading.Thread(target=supervisor.run, args=(listener, stop))
        thread.start()

        def ask(request: bytes) -> Fields:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10)
                sock.connect(str(path))
                sock.sendall(request)
                return read_frame(sock)

        yield ask
        os.eventfd_write(stop, 1)
        thread.join()
        os.close(stop)


def strict(version: int) -> Answering:
    """Answer as datapaths did that took no version but their own."""
    answers: dict[str, tuple[str, Fields]] = {
        "Open": ("Opened", {"volume": OPENED}),
        "Status": ("Statuses", {"exports": [STATUS]}),
        "Grow": ("Sized", {"size": {"count": 8192}}),
    }

    def answering(request: Fields) -> tuple[str, int, Fields]:
        if request["version"] == version:
            kind, fields = answers.get(request["kind"], ("Done", {}))
            return kind, version, fields
        refusal = {
            "error": "InvalidRequestError",
            "message": f"a message of the datapath has version {request['version']},"
            f" this process speaks {version}: restart the older of the two",
        }
        return "Failed", version, refusal

    return answering


def test_one_version_before_ours_is_spoken() -> None:
    assert MIN_VERSION == VERSION - 1


def test_a_datapath_of_the_version_before_takes_every_request(
    other: MakeDatapath, open_volume: MakeVolume
) -> None:
    datapath, peer = other(strict(VERSION - 1))
    volume_id = open_volume().volume_id
    datapath.ping()
    assert datapath.open(open_volume()).fenced is None
    (status,) = datapath.list()
    assert datapath.status(volume_id) == status
    assert datapath.grow(volume_id).count == 8192
    datapath.close(volume_id)
    spoken = [(each["kind"], each["version"]) for each in peer.asked]
    kinds = ("Ping", "Open", "Status", "Status", "Grow", "Close")
    assert spoken == [
        (kind, version) for kind in kinds for version in (VERSION, VERSION - 1)
    ]


def test_a_datapath_further_behind_is_an_error_that_says_what_to_do(
    other: MakeDatapath, open_volume: MakeVolume
) -> None:
    datapath, _ = other(strict(VERSION - 2))
    with pytest.raises(SkewError, match=f"speaks version {VERSION} .* version 1,.*Dra"):
        datapath.close(open_volume().volume_id)


def test_a_datapath_of_the_version_after_may_tell_more(
    other: MakeDatapath, open_volume: MakeVolume
) -> None:
    def newer(request: Fields) -> tuple[str, int, Fields]:
        match request["kind"]:
            case "Status":
                more = {**STATUS, "device": {**DEVICE, "queues": 4}, "mood": "good"}
                return "Statuses", VERSION + 1, {"exports": [more], "total": 1}
            case "Open":
                more = {**OPENED, "fenced": None, "speed": 9}
                return "Opened", VERSION + 1, {"volume": more}
            case "Grow":
                return "Sized", VERSION + 1, {"size": {"count": 8192}, "old": 1}
            case _:
                return "Done", VERSION + 1, {"after": 0.1}

    datapath, peer = other(newer)
    volume_id = open_volume().volume_id
    datapath.ping()
    assert datapath.open(open_volume()).size.count == 4096
    assert datapath.list()[0].worker_pid == 7
    assert datapath.grow(volume_id).count == 8192
    datapath.close(volume_id)
    assert {each["version"] for each in peer.asked} == {VERSION}


def test_a_datapath_that_answers_in_a_version_still_later_is_named(
    other: MakeDatapath,
) -> None:
    datapath, _ = other(lambda _: ("Done", VERSION + 2, {}))
    with pytest.raises(SkewError, match=rf"datapath version {VERSION + 2},.*Drain"):
        datapath.ping()


def test_a_node_service_of_the_version_before_is_answered_in_that(
    asked: Callable[[bytes], Fields], node: Node, open_volume: MakeVolume
) -> None:
    opened = node.exports.open(open_volume())
    about = {"volume_id": VOLUME_ID}
    older = VERSION - 1
    assert asked(frame("Ping", older, {}))["version"] == older
    statuses = asked(frame("Status", older, about))
    (status,) = statuses["fields"]["exports"]
    assert statuses["version"] == older
    assert status.keys() == STATUS.keys()
    sized = asked(frame("Grow", older, about))
    assert sized["fields"] == {"size": {"count": 2 * opened.size.count}}
    done = asked(frame("Close", older, about))
    assert (done["kind"], done["version"], done["fields"]) == ("Done", older, {})
    assert node.exports.status(None) == ()


def test_a_node_service_of_the_version_before_is_not_told_what_it_cannot_read(
    open_volume: MakeVolume,
) -> None:
    device = Device(Path("/dev/nbd7"), DeviceKind.KERNEL, "v1", read_only=False)
    fenced = Fenced("node-b", "192.0.2.1:0/5")
    answer = Opened(OpenedVolume(device, EffectiveSize(4096), "a", fenced))
    text, _ = envelope.encode(answer, VERSION - 1)
    assert json.loads(text)["fields"]["volume"] == OPENED
    assert codec.needed(answer) == VERSION
    assert codec.needed(Open(open_volume())) == 0
    text, _ = envelope.encode(answer)
    assert json.loads(text)["fields"]["volume"].keys() == {*OPENED, "fenced"}


def test_a_node_service_of_the_version_after_can_ask_close_and_grow(
    asked: Callable[[bytes], Fields], node: Node, open_volume: MakeVolume
) -> None:
    node.exports.open(open_volume())
    about = {"volume_id": {**VOLUME_ID, "generation": 2}, "patience": 5}
    newer = VERSION + 1
    for kind, fields, answer in (
        ("Ping", {"who": "node"}, "Done"),
        ("Status", about, "Statuses"),
        ("Status", {"volume_id": None, "all": True}, "Statuses"),
        ("Grow", about, "Sized"),
        ("Close", about, "Done"),
    ):
        found = asked(frame(kind, newer, fields, trace="t"))
        assert (found["kind"], found["version"]) == (answer, VERSION)
    assert node.exports.status(None) == ()


def test_a_node_service_of_the_version_after_cannot_open_a_volume_in_new_ways(
    asked: Callable[[bytes], Fields], node: Node
) -> None:
    found = asked(frame("Open", VERSION + 1, {"volume": {"integrity": True}}))
    assert (found["kind"], found["fields"]["error"]) == ("Failed", "SkewError")
    for words in (
        f"speaks version {VERSION + 1} of",
        f"datapath version {VERSION},",
        "Drain the node, then delete its datapath pod",
    ):
        assert words in found["fields"]["message"]
    assert node.exports.status(None) == ()


@pytest.mark.parametrize("version", [MIN_VERSION - 1, VERSION + 2])
def test_a_node_service_further_away_is_refused(
    asked: Callable[[bytes], Fields], version: int
) -> None:
    found = asked(frame("Ping", version, {}))
    assert found["fields"]["error"] == "SkewError"
    assert f"version {version} of" in found["fields"]["message"]


def test_our_own_version_has_our_own_fields_and_no_others() -> None:
    text = frame("Ping", VERSION, {"who": "node"})[8:]
    with pytest.raises(InvalidRequestError, match="Ping belongs"):
        envelope.decode(text, b"")


def test_a_node_service_asks_again_only_if_nothing_was_done(
    other: MakeDatapath, open_volume: MakeVolume
) -> None:
    refusal = {"error": "InvalidRequestError", "message": "there is no such method"}
    datapath, peer = other(lambda _: ("Failed", VERSION, refusal))
    with pytest.raises(InvalidRequestError, match="no such method"):
        datapath.open(open_volume())
    assert len(peer.asked) == 1


def test_workers_speak_the_version_of_their_supervisor(
    open_volume: MakeVolume,
) -> None:
    one, theirs = socket.socketpair()
    with one, theirs:
        wire.send(one, Ping())
        assert wire.receive_versioned(theirs) == (Ping(), VERSION)
        wire.send(one, Done(), MIN_VERSION)
        assert wire.receive_versioned(theirs) == (Done(), MIN_VERSION)
        wire.send(one, Open(open_volume()), MIN_VERSION)
        assert wire.receive(theirs) == Open(open_volume())
