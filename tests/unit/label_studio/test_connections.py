"""Connections to Label Studio are kept; what was closed meanwhile is asked once more, and a POST never sent twice."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import ResponseNotReady
from http.server import BaseHTTPRequestHandler

import pytest
import requests
from urllib3.util.ssltransport import SSLTransport

from tests.harness.http_server import Answer, RecordingServer, StartServer, reply
from yolo_backend.label_studio import connections as studio_connections
from yolo_backend.label_studio import endpoint as endpoint_module
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.label_studio.studios import Studios
from yolo_backend.settings import load_settings

LEGACY = "0123456789abcdef0123456789abcdef01234567"
LET_GO_S = 0.02


class House:
    """A server that counts the requests of each connection, and a Studio that asks it."""

    def __init__(self, serve: StartServer, answer: Answer | None = None) -> None:
        self.asked: Counter[int] = Counter()
        self._answer = answer or self.tell
        self.server: RecordingServer = serve(self.count)
        self.studio = Studio(self.server.url, LEGACY)

    def count(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked[handler.client_address[1]] += 1
        self._answer(handler)

    def is_first(self, handler: BaseHTTPRequestHandler) -> bool:
        return self.asked[handler.client_address[1]] == 1

    @staticmethod
    def tell(handler: BaseHTTPRequestHandler) -> None:
        reply(json.dumps({"path": handler.path}).encode())(handler)

    def call(self, method: str = "GET", path: str = "/api/x") -> object:
        return self.studio.call(method, path, "path", 5)

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.server.requests]


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


either_way = pytest.mark.parametrize("close", [hang_up, reset])


def closing_the_second(house: House, close: Answer) -> Answer:
    """Answers the first request of each connection, and hangs up on the second, which it has read."""
    return lambda handler: (house.tell if house.is_first(handler) else close)(handler)


def test_questions_share_a_connection(serve: StartServer) -> None:
    house = House(serve)
    assert [house.call(path=f"/api/{number}") for number in range(5)] == [f"/api/{number}" for number in range(5)]
    house.call("DELETE")
    assert list(house.asked.values()) == [6]


def test_a_post_has_a_connection_of_its_own(serve: StartServer) -> None:
    house = House(serve)
    for method in ("GET", "POST", "GET", "POST"):
        house.call(method)
    assert sorted(house.asked.values()) == [1, 1, 2]


@pytest.mark.alone
@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux can be asked to acknowledge at once")
def test_a_body_sent_after_its_head_is_not_held_back(serve: StartServer) -> None:
    house = House(serve)  # which sends them one after the other, as Label Studio's own server does
    took_s = []
    for _ in range(20):
        started_at = time.monotonic()
        house.call()
        took_s.append(time.monotonic() - started_at)
    assert list(house.asked.values()) == [20]
    assert sorted(took_s)[10] < 0.03  # each takes 0.04 s where the head is acknowledged late


@pytest.mark.parametrize("status", [204, 302, 404, 500])
def test_a_connection_is_kept_after_an_answer_of_any_kind(serve: StartServer, status: int) -> None:
    house = House(serve)
    house._answer = lambda handler: (reply(b"", status) if house.is_first(handler) else house.tell)(handler)
    if status == 204:
        house.studio.call("DELETE", "/api/x", None, 5)
    else:
        with pytest.raises(StudioError):
            house.call()
    assert house.call() == "/api/x"
    assert list(house.asked.values()) == [2]


def test_chunks_leave_the_connection_usable(serve: StartServer) -> None:
    def in_chunks(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in (b'{"path"', b": 3}"):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    house = House(serve, in_chunks)
    assert [house.call(), house.call()] == [3, 3]
    assert list(house.asked.values()) == [2]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_was_closed_while_idle_is_not_used_again(serve: StartServer, method: str) -> None:
    house = House(serve)

    def tell(handler: BaseHTTPRequestHandler) -> None:
        house.tell(handler)
        handler.connection.settimeout(LET_GO_S)  # until the next request

    house._answer = tell
    house.call()
    time.sleep(5 * LET_GO_S)
    assert house.call(method) == "/api/x"
    assert house.methods == ["GET", method]
    assert list(house.asked.values()) == [1, 1]


@either_way
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_question_that_met_a_connection_being_closed_is_asked_once_more(
    serve: StartServer, method: str, close: Answer
) -> None:
    house = House(serve)
    house._answer = closing_the_second(house, close)
    assert [house.call(method) for _ in range(4)] == ["/api/x"] * 4
    assert house.methods == [method] * 6  # the second and the fourth, twice


@either_way
def test_it_is_asked_once_more_only(serve: StartServer, close: Answer) -> None:
    house = House(serve)
    house.call()
    house._answer = close
    with pytest.raises(StudioError, match="the connection broke off"):
        house.call()
    assert len(house.server.requests) == 3


@either_way
def test_who_hangs_up_on_a_new_connection_is_not_asked_again(serve: StartServer, close: Answer) -> None:
    house = House(serve, close)
    with pytest.raises(StudioError, match="the connection broke off"):
        house.call()
    assert len(house.server.requests) == 1


def test_what_is_said_when_an_idle_connection_is_closed_is_no_answer(serve: StartServer) -> None:
    house, is_said = House(serve), threading.Event()

    def tell(handler: BaseHTTPRequestHandler) -> None:
        house.tell(handler)
        handler.wfile.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        handler.close_connection = True
        is_said.set()

    house._answer = tell
    for _ in range(3):
        assert house.call() == "/api/x"
        assert is_said.wait(5)
        is_said.clear()
    assert house.methods == ["GET"] * 3


@either_way
def test_a_connection_in_the_place_of_a_kept_one_is_a_new_one(serve: StartServer, close: Answer) -> None:
    house = House(serve)

    def tell(handler: BaseHTTPRequestHandler) -> None:
        house.tell(handler)
        handler.close_connection = True

    house._answer = tell
    house.call()
    time.sleep(LET_GO_S)
    house._answer = close
    with pytest.raises(StudioError, match="the connection broke off"):
        house.call()
    assert len(house.server.requests) == 2


@either_way
def test_a_post_is_never_sent_twice(serve: StartServer, close: Answer) -> None:
    house = House(serve)
    house.call()
    house._answer = close  # it has read the POST, and may have done what was asked
    with pytest.raises(StudioError, match="the connection broke off"):
        house.call("POST")
    assert house.methods == ["GET", "POST"]


def test_no_post_is_lost_to_a_server_that_closes_when_it_likes(serve: StartServer) -> None:
    house = House(serve)

    def tell(handler: BaseHTTPRequestHandler) -> None:
        house.tell(handler)
        handler.connection.settimeout(0.005)

    house._answer = tell
    for number in range(60):
        assert house.call("GET" if number % 2 else "POST") == "/api/x"
        time.sleep(0.0045 + number % 6 / 5000)  # about as long as it keeps a connection
    assert house.methods.count("POST") == 30


def test_a_connection_is_not_kept_for_long(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_connections, "_KEPT_S", LET_GO_S)
    house = House(serve)
    house.call()
    time.sleep(2 * LET_GO_S)
    house.call()
    assert list(house.asked.values()) == [1, 1]


def test_what_is_not_read_to_its_end_is_hung_up_on(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_MAX_ANSWER_BYTES", 100_000)
    house = House(serve)
    house._answer = lambda handler: (reply(b" " * 2_000_000) if handler.path == "/api/long" else house.tell)(handler)
    house.call()
    with pytest.raises(StudioError, match="answers more than"):
        house.call(path="/api/long")
    assert house.call() == "/api/x"
    assert list(house.asked.values()) == [2, 1]


def test_no_cookie_is_kept_or_sent(serve: StartServer) -> None:
    house = House(serve, reply(b'{"path": 1}', Set_Cookie="sessionid=of-somebody; Path=/"))
    for method in ("GET", "POST", "GET", "DELETE"):
        house.call(method)
    assert all("cookie" not in request.headers for request in house.server.requests)


def test_a_proxy_of_the_environment_reads_no_token(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(reply(b'{"path": "the proxy"}'))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    house = House(serve)
    assert [house.call(), house.call("POST")] == ["/api/x", "/api/x"]
    assert proxy.requests == []


def test_a_redirect_is_not_followed(serve: StartServer) -> None:
    other = serve(reply(b'{"path": "elsewhere"}'))
    house = House(serve, reply(b"", 302, Location=other.url))
    for method in ("GET", "POST"):
        with pytest.raises(StudioError):
            house.call(method)
    assert other.requests == []


def test_threads_share_them_and_each_has_its_own_answer(serve: StartServer) -> None:
    house = House(serve)

    def tell(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.002)
        house.tell(handler)

    house._answer = tell
    paths = [f"/api/{number}" for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda path: house.call(path=path), paths)) == paths
    assert 1 < len(house.asked) <= 8


def test_the_label_studios_of_a_server_share_them(serve: StartServer, clean_environment: pytest.MonkeyPatch) -> None:
    house = House(serve)
    studios = Studios(load_settings())
    for project, token in (("1.1", LEGACY), ("2.2", LEGACY[::-1])):
        studios.introduce(project, house.server.url, token)
        studio = studios.of_project(project)
        assert studio is not None
        studio.call("GET", "/api/x", "path", 5)
    assert list(house.asked.values()) == [2]
    assert [request.headers["authorization"][6:] for request in house.server.requests] == [LEGACY, LEGACY[::-1]]


@pytest.mark.long
def test_the_body_of_a_redirect_is_not_waited_for(serve: StartServer) -> None:
    """What stands in front of Label Studio may redirect, with a page that never ends."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/login")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    house = House(serve, drip)
    began = time.monotonic()
    with pytest.raises(requests.Timeout):  # and not the redirect, ten seconds later
        house.studio.call("GET", "/api/x", "path", 2)
    assert time.monotonic() - began < 5


def test_tls_within_tls_is_asked_by_its_own_socket() -> None:
    """As a proxy that is spoken to over TLS makes of an https address: urllib3's SSLTransport has no options."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        plain = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
        with plain, other:
            connection = studio_connections._KeptTlsConnection("127.0.0.1", 1)
            transport = SSLTransport.__new__(SSLTransport)
            transport.socket = plain
            connection.sock = transport  # type: ignore[assignment]
            with pytest.raises(ResponseNotReady):
                connection.getresponse()
