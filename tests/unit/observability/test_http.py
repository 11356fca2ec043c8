# SPDX-License-Identifier: Apache-2.0
"""The HTTP server before real clients, the slow and the hostile among them."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from csi_driver.domain.errors import UnavailableError
from csi_driver.observability import http as server_module
from csi_driver.observability.http import LONGEST_REQUEST
from csi_driver.observability.http import MOST_CLIENTS
from csi_driver.observability.http import REQUEST_SECONDS
from csi_driver.observability.http import Answer
from csi_driver.observability.http import Page
from csi_driver.observability.http import serving

LARGE = b"x" * (64 << 20)


def hello(accept: str) -> Answer:
    return Answer(HTTPStatus.OK, f"hello {accept}\n".encode())


def breaks(accept: str) -> Answer:
    raise RuntimeError("a key, perhaps")


PAGES: dict[str, Page] = {
    "/hello": hello,
    "/breaks": breaks,
    "/large": lambda _: Answer(HTTPStatus.OK, LARGE),
}


@pytest.fixture
def port() -> Iterator[int]:
    with serving("127.0.0.1", 0, PAGES) as port:
        yield port


def ask(
    port: int, path: str = "/hello", method: str = "GET", host: str = "127.0.0.1"
) -> tuple[int, bytes, http.client.HTTPMessage]:
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=10)) as one:
        one.request(method, path, headers={"Accept": "you"})
        answer = one.getresponse()
        return answer.status, answer.read(), answer.headers


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def is_hung_up(client: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return client.recv(1) == b""
    return True


def test_a_page_is_served_with_or_without_a_query(port: int) -> None:
    for path in ("/hello", "/hello?verbose"):
        status, body, headers = ask(port, path)
        assert (status, body) == (200, b"hello you\n")
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "Python" not in str(headers)


def test_head_gives_the_head_alone(port: int) -> None:
    status, body, headers = ask(port, method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "10")


@pytest.mark.parametrize("path", ["/", "/hello/", "/../hello", "/etc/passwd", "hello"])
def test_other_paths_are_not_found(port: int, path: str) -> None:
    status, body, _ = ask(port, path)
    assert status == 404
    assert b"/hello" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    status, _, headers = ask(port, method=method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_request_with_a_body_is_answered_at_once(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"POST /hello HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
        assert client.recv(100).startswith(b"HTTP/1.0 405")


def test_a_person_may_ask_by_hand(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"GET /hello HTTP/1.0\n\n")
        assert client.recv(100).startswith(b"HTTP/1.0 200")


def test_a_page_that_breaks_tells_no_details(port: int) -> None:
    status, body, _ = ask(port, "/breaks")
    assert status == 500
    assert b"key" not in body
    assert ask(port)[0] == 200


def test_noise_is_refused(port: int) -> None:
    for noise in (b"\0\xff\n\n", b"GET\r\n\r\n", b"\r\n\r\n", b"X " * 50 + b"\n\n"):
        with connected(port) as client:
            client.sendall(noise)
            answer = client.recv(100)
            assert not answer.startswith(b"HTTP/1.0 2")
    assert ask(port)[0] == 200


def test_an_endless_request_is_hung_up_on_at_once(port: int) -> None:
    begin = time.monotonic()
    with connected(port) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(b"GET /hello HTTP/1.1\r\nX: ")
            client.sendall(b"x" * (2 * LONGEST_REQUEST))
        assert is_hung_up(client)
    assert time.monotonic() - begin < REQUEST_SECONDS / 2


def test_a_drip_of_bytes_does_not_lengthen_the_time(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.5)
    begin = time.monotonic()
    with connected(port) as client, contextlib.suppress(ConnectionError):
        client.settimeout(0.05)
        client.sendall(b"GET /hello HTTP/1.1\r\nX: ")
        while time.monotonic() - begin < 10:
            client.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                assert client.recv(1) == b""
                break
    assert 0.4 < time.monotonic() - begin < 5


def test_who_does_not_take_the_answer_is_hung_up_on(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.5)
    before = threading.active_count()
    with connected(port) as client:
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        time.sleep(0.2)
        assert threading.active_count() > before
        deadline = time.monotonic() + 5
        while threading.active_count() > before:
            assert time.monotonic() < deadline, "its thread is still there"
            time.sleep(0.02)
    assert ask(port)[0] == 200


def test_silent_clients_neither_block_others_nor_pile_up(port: int) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connected(port)) for _ in range(4 * MOST_CLIENTS)]
        for _ in range(5):
            begin = time.monotonic()
            assert ask(port)[0] == 200
            assert time.monotonic() - begin < 2
        deadline = time.monotonic() + 5
        while threading.active_count() - before > MOST_CLIENTS:
            assert time.monotonic() < deadline, "threads pile up"
            time.sleep(0.02)
        assert is_hung_up(silent[0]), "the oldest goes first"


def test_who_waits_for_an_answer_is_not_the_one_to_go() -> None:
    entered, leave = threading.Semaphore(0), threading.Event()

    def slow(_accept: str) -> Answer:
        entered.release()
        leave.wait(20)
        return Answer(HTTPStatus.OK, b"at last")

    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving("127.0.0.1", 0, {"/slow": slow}))
        waiting = [stack.enter_context(connected(port)) for _ in range(MOST_CLIENTS)]
        for client in waiting:
            client.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
            assert entered.acquire(timeout=10)
        with connected(port) as another:
            assert is_hung_up(another)
        leave.set()
        for client in waiting:
            with client.makefile("rb") as reading:
                assert reading.read().endswith(b"at last")


@pytest.mark.parametrize("host", ["::1", "localhost", ""])
def test_addresses_of_every_kind(host: str) -> None:
    with serving(host, 0, PAGES) as port:
        assert ask(port, host=host or "127.0.0.1")[0] == 200
        if not host:
            assert ask(port, host="::1")[0] == 200


def test_an_ipv6_address_is_not_all_addresses() -> None:
    with serving("::1", 0, PAGES) as port, pytest.raises(ConnectionRefusedError):
        ask(port)


def test_a_taken_port_is_a_readable_failure(port: int) -> None:
    with (
        pytest.raises(UnavailableError, match=f"127.0.0.1:{port}: Address already"),
        serving("127.0.0.1", port, PAGES),
    ):
        pass


def test_an_unknown_host_is_a_readable_failure() -> None:
    with (
        pytest.raises(UnavailableError, match=r"192\.0\.2\.1:1"),
        serving("192.0.2.1", 1, PAGES),
    ):
        pass


def test_nothing_listens_afterwards() -> None:
    with serving("127.0.0.1", 0, PAGES) as port:
        assert ask(port)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        connected(port)
