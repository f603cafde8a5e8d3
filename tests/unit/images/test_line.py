"""A line that is hung up: the fetching thread is free at once, wherever it waits, and nobody else's connection ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import urllib3

from tests.harness.http_server import StartServer, redirect, reply
from tests.harness.talking_server import Talk, TalkingServer, be_silent, deaf_port, drip, talking_server
from yolo_backend.images import connections
from yolo_backend.images.errors import HungUpError, ImageError
from yolo_backend.images.fetch import Fetched, ImageFetcher
from yolo_backend.images.line import Alarm, Line
from yolo_backend.images.sources import LocalFile, Remote, Source, resolve_source

WAIT_S = 5.0
AT_ONCE_S = 1.5  # far below WAIT_S, and no matter on a busy machine
IMAGE = b"the bytes of an image"
OK = b"HTTP/1.1 200 OK\r\n"


class Holder:
    """A Label Studio whose token waits for an exchange until `gate` is open."""

    def __init__(self, url: str, *, must_ask: bool = False) -> None:
        self.url = url
        self.gate = threading.Event()
        self.asked = threading.Event()
        self.renews: list[bool] = []
        self._must_ask = must_ask

    def authorization(self, *, renew: bool = False) -> str | None:
        self.renews.append(renew)
        if renew or self._must_ask:
            self.asked.set()
            assert self.gate.wait(WAIT_S)
        return "Bearer new" if renew else "Bearer old"

    def must_ask(self) -> bool:
        return self._must_ask


@pytest.fixture
def fetcher() -> ImageFetcher:
    return ImageFetcher(
        timeout_s=WAIT_S, max_bytes=1_000_000, connections=4, allowed_hosts=frozenset({"127.0.0.1", "localhost"})
    )


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


@pytest.fixture
def talk() -> Iterator[Callable[[Talk], TalkingServer]]:
    """Starts servers that talk so; they end with the test."""
    with ExitStack() as servers:
        yield lambda what: servers.enter_context(talking_server(what))


def hang_up_and_see(future: Future[Any], line: Line) -> None:
    """Hangs up, and sees the fetching thread come out at once for that reason."""
    started_at = time.monotonic()
    line.hang_up()
    assert isinstance(future.exception(WAIT_S), HungUpError)
    assert time.monotonic() - started_at < AT_ONCE_S


# Wherever it waits

PLACES = {
    "an answer": be_silent,
    "the status": drip(b"HTTP/1.1 2", b"0"),
    "headers": drip(OK, b"X: x\r\n"),
    "a body without a length": drip(OK + b"\r\n", b"x"),
    "a body with a length": drip(OK + b"Content-Length: 50000\r\n\r\n", b"x"),
    "chunks": drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
}


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("by_redirect", [False, True])
def test_who_waits_for_a_server_is_free_at_once(
    fetcher: ImageFetcher,
    threads: ThreadPoolExecutor,
    talk: Callable[[Talk], TalkingServer],
    serve: StartServer,
    place: Talk,
    by_redirect: bool,
) -> None:
    server, line = talk(place), Line()
    url = serve(redirect(server.url)).url if by_redirect else server.url
    future = threads.submit(fetcher.fetch, Remote(url), None, line=line)
    assert server.opened.acquire(timeout=WAIT_S)
    time.sleep(0.1)
    hang_up_and_see(future, line)
    assert server.closed.acquire(timeout=AT_ONCE_S)


def test_who_makes_a_tls_handshake_is_free_at_once(
    fetcher: ImageFetcher, threads: ThreadPoolExecutor, talk: Callable[[Talk], TalkingServer]
) -> None:
    has_begun = threading.Event()

    def hear(connection: socket.socket) -> None:
        connection.recv(1)
        has_begun.set()

    server, line = talk(hear), Line()
    future = threads.submit(fetcher.fetch, Remote(f"https://{server.host}/"), None, line=line)
    assert has_begun.wait(WAIT_S)
    hang_up_and_see(future, line)
    assert server.closed.acquire(timeout=AT_ONCE_S)


@pytest.mark.parametrize("place", [be_silent, drip(OK, b"X: x\r\n")])
def test_who_makes_a_proxys_tunnel_is_free_at_once(
    fetcher: ImageFetcher,
    threads: ThreadPoolExecutor,
    talk: Callable[[Talk], TalkingServer],
    monkeypatch: pytest.MonkeyPatch,
    place: Talk,
) -> None:
    proxy, line = talk(place), Line()
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    future = threads.submit(fetcher.fetch, Remote("https://localhost:1/"), None, line=line)
    assert proxy.opened.acquire(timeout=WAIT_S)
    time.sleep(0.1)
    hang_up_and_see(future, line)
    assert proxy.closed.acquire(timeout=AT_ONCE_S)


def test_who_connects_is_free_at_once(fetcher: ImageFetcher, threads: ThreadPoolExecutor) -> None:
    line = Line()
    with deaf_port() as port:
        future = threads.submit(fetcher.fetch, Remote(f"http://127.0.0.1:{port}/"), None, line=line)
        time.sleep(0.2)
        assert not future.done()
        hang_up_and_see(future, line)


def test_a_host_that_swallows_everything_is_given_up_after_the_images_time(threads: ThreadPoolExecutor) -> None:
    fetcher = ImageFetcher(timeout_s=0.3, max_bytes=1000, connections=1, allowed_hosts=frozenset({"127.0.0.1"}))
    with deaf_port() as port, pytest.raises(ImageError) as raised:
        fetcher.fetch(Remote(f"http://127.0.0.1:{port}/"), None)
    assert raised.value.kind == "timeout"


def test_who_waits_for_a_tokens_exchange_is_free_at_once_and_the_exchange_goes_on(
    fetcher: ImageFetcher, threads: ThreadPoolExecutor, serve: StartServer
) -> None:
    server, line = serve(reply(IMAGE)), Line()
    holder = Holder(server.url, must_ask=True)
    future = threads.submit(fetcher.fetch, Remote(server.url), holder, line=line)
    assert holder.asked.wait(WAIT_S)
    hang_up_and_see(future, line)
    assert server.requests == []
    other = threads.submit(fetcher.fetch, Remote(server.url), holder)
    holder.gate.set()
    assert other.result(WAIT_S).content == IMAGE
    assert holder.renews == [False, False]


def test_who_waits_for_a_tokens_renewal_is_free_at_once(
    fetcher: ImageFetcher, threads: ThreadPoolExecutor, serve: StartServer
) -> None:
    server, line = serve(reply(b"", 401)), Line()
    holder = Holder(server.url)
    future = threads.submit(fetcher.fetch, Remote(server.url), holder, line=line)
    assert holder.asked.wait(WAIT_S)
    hang_up_and_see(future, line)
    holder.gate.set()
    assert len(server.requests) == 1


def test_a_token_that_cannot_be_exchanged_is_told(fetcher: ImageFetcher, serve: StartServer) -> None:
    class RefusedError(Exception):
        pass

    class RefusedHolder(Holder):
        def authorization(self, *, renew: bool = False) -> str | None:
            raise RefusedError

    server = serve(reply(IMAGE))
    with pytest.raises(RefusedError):
        fetcher.fetch(Remote(server.url), RefusedHolder(server.url, must_ask=True))
    assert server.requests == []


# What comes after


def test_nothing_is_asked_once_it_is_hung_up(fetcher: ImageFetcher, serve: StartServer, tmp_path: Any) -> None:
    server, hosts = serve(reply(IMAGE)), list[str]()
    line = Line(hosts.append)
    line.hang_up()
    line.hang_up()
    assert line.is_hung_up
    (tmp_path / "a.png").write_bytes(IMAGE)
    sources: list[Source] = [
        Remote(server.url),
        LocalFile(tmp_path, "a.png"),
        resolve_source("data:image/png;base64,aaaa", 1, None, None),
    ]
    for source in sources:
        with pytest.raises(HungUpError):
            fetcher.fetch(source, None, line=line)
    assert server.requests == []
    assert hosts == []


def test_what_is_hung_up_between_two_redirects_goes_no_further(fetcher: ImageFetcher, serve: StartServer) -> None:
    line, target = Line(), serve(reply(IMAGE))

    def send_on(handler: BaseHTTPRequestHandler) -> None:
        redirect(target.url)(handler)

    server = serve(send_on)
    hosts: list[str] = []
    real = fetcher._download

    def download(*args: Any) -> Fetched | str:
        sent_on = real(*args)
        line.hang_up()
        return sent_on

    line.on_host = hosts.append
    fetcher._download = download  # type: ignore[method-assign,assignment]
    with pytest.raises(HungUpError):
        fetcher.fetch(Remote(server.url), None, line=line)
    assert hosts == [f"127.0.0.1:{server.port}"]
    assert target.requests == []


def test_what_is_hung_up_just_before_it_connects_connects_nowhere(
    fetcher: ImageFetcher, talk: Callable[[Talk], TalkingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, line = talk(be_silent), Line()
    real = connections.create_connection

    def create(*args: Any) -> Any:
        line.hang_up()
        return real(*args)

    monkeypatch.setattr(connections, "create_connection", create)
    with pytest.raises(HungUpError):
        fetcher.fetch(Remote(server.url), None, line=line)
    assert not server.opened.acquire(timeout=0.1)


def test_what_is_hung_up_just_after_it_connected_waits_for_nothing(
    fetcher: ImageFetcher, talk: Callable[[Talk], TalkingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, line = talk(be_silent), Line()
    real = connections.create_connection

    def create(*args: Any) -> Any:
        connection = real(*args)
        line.hang_up()
        return connection

    monkeypatch.setattr(connections, "create_connection", create)
    started_at = time.monotonic()
    with pytest.raises(HungUpError):
        fetcher.fetch(Remote(server.url), None, line=line)
    assert time.monotonic() - started_at < AT_ONCE_S


def test_an_image_that_came_to_its_end_by_hanging_up_is_none(
    fetcher: ImageFetcher, threads: ThreadPoolExecutor, talk: Callable[[Talk], TalkingServer]
) -> None:
    """A body without a length is whole when its connection ends, as far as HTTP can tell."""

    def begin(connection: Any) -> None:
        connection.recv(4096)
        connection.sendall(OK + b"\r\nhalf an image")

    server, line = talk(begin), Line()
    future = threads.submit(fetcher.fetch, Remote(server.url), None, line=line)
    assert server.opened.acquire(timeout=WAIT_S)
    time.sleep(0.1)
    hang_up_and_see(future, line)


# Who is talked to


def test_each_host_on_the_way_is_told(fetcher: ImageFetcher, serve: StartServer) -> None:
    hosts: list[str] = []
    bucket = serve(reply(IMAGE))
    studio = serve(redirect(f"http://LOCALHOST:{bucket.port}/a.png?signature=s3cr3t"))
    studio_holder = Holder(studio.url)
    assert fetcher.fetch(Remote(studio.url), studio_holder, line=Line(hosts.append)).content == IMAGE
    assert hosts == [f"127.0.0.1:{studio.port}", f"localhost:{bucket.port}"]


def test_a_port_that_goes_without_saying_is_left_out(fetcher: ImageFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise ConnectionRefusedError

    monkeypatch.setattr(connections, "create_connection", refuse)
    hosts: list[str] = []
    for url in ("http://127.0.0.1/a", "http://127.0.0.1:80/a", "https://127.0.0.1:443/a", "http://127.0.0.1:443/a"):
        with pytest.raises(ImageError):
            fetcher.fetch(Remote(url), None, line=Line(hosts.append))
    assert hosts == ["127.0.0.1"] * 3 + ["127.0.0.1:443"]


# Connections that others use


def count_connections(handlers: set[BaseHTTPRequestHandler]) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handlers.add(handler)
        reply(IMAGE)(handler)

    return answer


def test_to_hang_up_late_leaves_a_pooled_connection_alone(fetcher: ImageFetcher, serve: StartServer) -> None:
    handlers: set[BaseHTTPRequestHandler] = set()
    server, line = serve(count_connections(handlers)), Line()
    assert fetcher.fetch(Remote(server.url), None, line=line).content == IMAGE
    line.hang_up()
    assert fetcher.fetch(Remote(server.url), None).content == IMAGE
    assert len(handlers) == 1


def test_a_connection_is_not_hung_up_on_once_others_may_have_it(
    fetcher: ImageFetcher, serve: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image's last bytes give its connection back, a little before the fetch is over."""
    handlers: set[BaseHTTPRequestHandler] = set()
    server, line = serve(count_connections(handlers)), Line()
    real = urllib3.HTTPConnectionPool._put_conn

    def put(pool: Any, connection: Any) -> None:
        real(pool, connection)
        line.hang_up()

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "_put_conn", put)
    with pytest.raises(HungUpError):
        fetcher.fetch(Remote(server.url), None, line=line)
    assert fetcher.fetch(Remote(server.url), None).content == IMAGE
    assert len(handlers) == 1


def test_a_connection_that_was_hung_up_on_at_the_last_moment_is_not_given_back(
    fetcher: ImageFetcher, serve: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, line = serve(reply(IMAGE)), Line()
    real, given_back = urllib3.HTTPConnectionPool._put_conn, []
    ours = connections._LettingGo._put_conn

    def hang_up_and_put(pool: Any, connection: Any) -> None:
        line.hang_up()
        ours(pool, connection)

    def put(pool: Any, connection: Any) -> None:
        given_back.append(connection.sock)
        real(pool, connection)

    monkeypatch.setattr(connections._LettingGo, "_put_conn", hang_up_and_put)
    monkeypatch.setattr(urllib3.HTTPConnectionPool, "_put_conn", put)
    with pytest.raises(HungUpError):
        fetcher.fetch(Remote(server.url), None, line=line)
    assert given_back == [None]


def test_who_hangs_up_has_done_so_before_the_connection_is_given_back() -> None:
    """Else it would hang up on the next image's."""
    told: list[str] = []
    begun = threading.Event()
    line = Line()

    class SlowAlarm(Alarm):
        def ring(self) -> None:
            begun.set()
            time.sleep(0.2)
            told.append("rung")

    with SlowAlarm(WAIT_S, line):
        hanging_up = threading.Thread(target=line.hang_up)
        hanging_up.start()
        assert begun.wait(WAIT_S)
    told.append("given back")
    hanging_up.join()
    assert told == ["rung", "given back"]


def test_one_line_is_hung_up_and_the_others_go_on(
    fetcher: ImageFetcher, threads: ThreadPoolExecutor, serve: StartServer
) -> None:
    gate, come = threading.Event(), threading.Semaphore(0)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        come.release()
        gate.wait(WAIT_S)
        reply(IMAGE)(handler)

    server, lines = serve(answer), [Line() for _ in range(4)]
    futures = [threads.submit(fetcher.fetch, Remote(server.url), None, line=line) for line in lines]
    for _ in lines:
        assert come.acquire(timeout=WAIT_S)
    hang_up_and_see(futures[0], lines[0])
    gate.set()
    assert [future.result(WAIT_S).content for future in futures[1:]] == [IMAGE] * 3
