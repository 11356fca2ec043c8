# SPDX-License-Identifier: Apache-2.0
"""Messages survive the wire, and nothing else does; secrets stay beside the text."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING
from typing import Any

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.datapath import envelope as enveloping
from csi_driver.datapath import messages
from csi_driver.datapath import wire
from csi_driver.datapath.messages import Failed
from csi_driver.datapath.messages import Message
from csi_driver.datapath.messages import Open
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.messages import Ping
from csi_driver.datapath.messages import TakeSocket
from csi_driver.domain import errors
from csi_driver.domain.chain import LayerSpec
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.secrets import SecretBytes

if TYPE_CHECKING:
    from tests.unit.datapath.conftest import MakeVolume

type Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(5)
        other.settimeout(5)
        yield one, other


def there_and_back(message: Message) -> Message:
    text, secrets = enveloping.encode(message)
    raw = b"".join(each.reveal() for each in secrets)
    found, version = enveloping.decode(text, raw)
    assert version == messages.VERSION
    return found


text = st.text(st.characters(codec="utf-8"), max_size=20)
secret = st.binary(max_size=80).map(SecretBytes)


@st.composite
def open_requests(draw: st.DrawFn) -> Open:
    mode = draw(st.sampled_from(EncryptionMode))
    layer = st.builds(LayerSpec, secret, st.sampled_from(LuksFormat))
    layers = draw(st.lists(layer, min_size=1, max_size=16))
    return Open(
        OpenVolume(
            volume_id=VolumeId(Location("c", draw(st.integers(1, 9)), "n"), "f00"),
            monitors=tuple(draw(st.lists(text, max_size=3))),
            user_id=draw(text),
            key=draw(secret),
            pool_name=draw(text),
            specs=LoadSpecs(tuple(layers)) if mode.encrypted else None,
            mode=mode,
            read_only=draw(st.booleans()),
            node_id=draw(text),
            boot_id=draw(text),
            method=draw(st.sampled_from(messages.METHODS)),
        ),
    )


@given(open_requests())
def test_a_request_survives(request: Open) -> None:
    assert there_and_back(request) == request


@given(open_requests())
def test_a_frame_survives(request: Open) -> None:
    one, other = socket.socketpair()
    with one, other:
        wire.send(one, request)
        assert wire.receive(other) == request


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_noise_is_refused_and_nothing_worse(noise: bytes, raw: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        enveloping.decode(noise, raw)


UNDERSTOOD = range(messages.MIN_VERSION, messages.VERSION + 2)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner),
    max_leaves=6,
)


@given(
    st.sampled_from(["version", "kind", "secrets", "fields"]),
    json_values,
)
@example("secrets", [0])
def test_an_envelope_with_one_wrong_part_is_refused(part: str, value: Any) -> None:
    text, _ = enveloping.encode(Ping())
    envelope = json.loads(text)
    if envelope[part] == value and type(envelope[part]) is type(value):
        return
    if part == "version" and type(value) is int and value in UNDERSTOOD:
        return
    envelope[part] = value
    with pytest.raises(InvalidRequestError):
        enveloping.decode(json.dumps(envelope).encode(), b"")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("read_only", 0),
        ("read_only", "false"),
        ("user_id", 7),
        ("monitors", "127.0.0.1"),
        ("mode", "plaintext"),
        ("method", "floppy"),
        ("key", "a2V5"),
        ("key", {"secret": 9}),
        ("key", {"secret": -1}),
        ("key", {"secret": True}),
        ("specs", None),
        ("volume_id", "v1:lab:1::abc"),
    ],
)
def test_a_request_with_a_wrong_field_is_refused(
    open_volume: MakeVolume, field: str, value: Any
) -> None:
    text, secrets = enveloping.encode(Open(open_volume()))
    envelope = json.loads(text)
    envelope["fields"]["volume"][field] = value
    raw = b"".join(each.reveal() for each in secrets)
    with pytest.raises(InvalidRequestError):
        enveloping.decode(json.dumps(envelope).encode(), raw)


@pytest.mark.parametrize("change", [{"more": 1}, {"user_id": ...}])
def test_fields_are_all_there_and_no_others(
    open_volume: MakeVolume, change: dict[str, Any]
) -> None:
    text, secrets = enveloping.encode(Open(open_volume()))
    envelope = json.loads(text)
    volume = envelope["fields"]["volume"] | change
    envelope["fields"]["volume"] = {
        name: value for name, value in volume.items() if value is not ...
    }
    raw = b"".join(each.reveal() for each in secrets)
    with pytest.raises(InvalidRequestError):
        enveloping.decode(json.dumps(envelope).encode(), raw)


@pytest.mark.parametrize(
    ("mode", "specs"),
    [
        (EncryptionMode.NONE, LoadSpecs((LayerSpec(SecretBytes(b"x")),))),
        (EncryptionMode.KEYRING, None),
        (EncryptionMode.PASSPHRASE, None),
    ],
)
def test_passphrases_go_with_encryption_and_only_then(
    mode: EncryptionMode, specs: LoadSpecs | None
) -> None:
    with pytest.raises(InvalidRequestError, match="passphrases"):
        OpenVolume(
            volume_id=VolumeId(Location("lab", 1), "abc"),
            monitors=(),
            user_id="u",
            key=SecretBytes(b""),
            pool_name="rbd",
            specs=specs,
            mode=mode,
            read_only=False,
            node_id="n",
            boot_id="b",
        )


def test_a_secret_shows_neither_in_text_nor_in_repr(
    open_volume: MakeVolume, caplog: pytest.LogCaptureFixture
) -> None:
    request = Open(open_volume())
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").info("%s %r", request, request)
    text, secrets = enveloping.encode(request)
    assert len(secrets) == 2
    for place in (repr(request), str(request), caplog.text, text.decode()):
        assert "canary" not in place
        assert "<secret>" in place or place == text.decode()


def test_wiping_empties_every_secret(open_volume: MakeVolume) -> None:
    volume = open_volume()
    assert volume.specs is not None
    volume.wipe()
    assert len(volume.key) == 0
    assert len(volume.specs.layers[0].passphrase) == 0


@pytest.mark.parametrize(
    "kind",
    [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, DriverError)
    ],
)
def test_errors_keep_their_class_and_words(kind: type[DriverError]) -> None:
    sent = there_and_back(Failed.of(kind("what to do")))
    assert isinstance(sent, Failed)
    error = sent.to_error()
    assert type(error) is kind
    assert str(error) == "what to do"


@pytest.mark.parametrize("name", ["SystemExit", "annotations", "__name__", ""])
def test_only_the_drivers_errors_are_raised(name: str) -> None:
    assert type(Failed(name, "text").to_error()) is InternalError


def test_an_unforeseen_error_tells_no_content() -> None:
    failed = Failed.of(ValueError("canary"))
    assert failed.error == "InternalError"
    assert "canary" not in failed.message


def test_a_frame_too_long_is_refused_unread(pair: Pair) -> None:
    one, other = pair
    one.sendall((wire.LONGEST_TEXT + 1).to_bytes(4) + bytes(4))
    with pytest.raises(InvalidRequestError, match="too long"):
        wire.receive(other)
    with pytest.raises(InvalidRequestError, match="one frame"):
        wire.send(one, Failed("InternalError", "x" * (wire.LONGEST_TEXT + 1)))


@pytest.mark.parametrize("cut", [0, 3, 8, 20])
def test_the_end_of_the_stream_is_told_apart(pair: Pair, cut: int) -> None:
    one, other = pair
    text, _ = enveloping.encode(Ping())
    frame = len(text).to_bytes(4) + bytes(4) + text
    one.sendall(frame[:cut])
    one.close()
    with pytest.raises(wire.ClosedError):
        wire.receive(other)


def test_silence_is_bounded(pair: Pair) -> None:
    pair[1].settimeout(0.05)
    with pytest.raises(UnavailableError, match="does not answer"):
        wire.receive(pair[1])


def test_a_socket_follows_its_announcement(pair: Pair) -> None:
    one, other = pair
    passed, kept = socket.socketpair()
    with kept:
        wire.send(one, TakeSocket())
        wire.send_socket(one, passed)
        wire.send(one, Ping())
        passed.close()
        assert wire.receive(other) == TakeSocket()
        with wire.receive_socket(other) as received:
            kept.sendall(b"hello")
            assert received.recv(5) == b"hello"
            assert not received.get_inheritable()
        assert wire.receive(other) == Ping()
