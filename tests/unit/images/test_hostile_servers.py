"""What a task's author, or the server that an address leads to, may try: a clear failure, soon, and no token."""

from __future__ import annotations

import gc
import gzip
import itertools
import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness.http_server import StartServer, redirect, reply
from yolo_backend.images import connections
from yolo_backend.images.errors import ImageError
from yolo_backend.images.fetch import ImageFetcher
from yolo_backend.images.sources import Remote

MAX_BYTES = 100_000
IMAGE = b"the bytes of an image"
TOKEN = "Token t0p-s3cr3t"
PUBLIC, PRIVATE = "93.184.216.34", "127.0.0.1"
SOON_S = 3

Talk = Callable[[socket.socket], None]


class Holder:
    """Label Studio as the fetcher needs it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def authorization(self, *, renew: bool = False) -> str | None:
        return None if renew else TOKEN

    def must_ask(self) -> bool:
        return False


def make_fetcher(*allowed_hosts: str, timeout_s: float = 5) -> ImageFetcher:
    return ImageFetcher(timeout_s=timeout_s, max_bytes=MAX_BYTES, connections=4, allowed_hosts=frozenset(allowed_hosts))


def failure(fetcher: ImageFetcher, url: str, studio: Holder | None = None) -> ImageError:
    started_at = time.monotonic()
    with pytest.raises(ImageError) as raised:
        fetcher.fetch(Remote(url), studio)
    assert time.monotonic() - started_at < SOON_S
    assert str(raised.value).isprintable()
    assert "s3cr3t" not in str(raised.value)
    return raised.value


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, name in itertools.product(["http", "https", "all", "no"], [str.lower, str.upper]):
        monkeypatch.delenv(name(f"{scheme}_proxy"), raising=False)


@pytest.fixture
def listen() -> Iterator[Callable[[Talk], int]]:
    """Starts servers that say what they like to each connection; they end with the test. Gives the port."""
    ended = threading.Event()
    listening: list[socket.socket] = []

    def start(talk: Talk) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def serve() -> None:
            while not ended.is_set():
                with suppress(OSError):
                    connection, _ = server.accept()
                    threading.Thread(target=speak, args=(connection,), daemon=True).start()

        def speak(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.settimeout(10)
                talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    ended.set()
    for server in listening:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a name's look-ups give these lists of addresses, one after the other; the last one again and again."""
    real = socket.getaddrinfo

    def set_answers(name: str, *answers: list[str]) -> None:
        left = list(answers)

        def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
            if host != name:
                return real(host, port, *args, **options)
            addresses = left.pop(0) if len(left) > 1 else left[0]
            return [entry for address in addresses for entry in real(address, port, *args, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return set_answers


@pytest.fixture
def connected_to(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that would have been connected to: nobody there answers."""
    hosts: list[str] = []

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        hosts.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(connections, "create_connection", connect)
    return hosts


# Private addresses by other names

SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "017700000001",
    "2130706433",
    "0",
    "0.0.0.0",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "①②⑦.⓪.⓪.①",
    "１２７.０.０.１",
    "127。0。0。1",
    "ｌｏｃａｌｈｏｓｔ",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "100.64.0.1",
    "100.100.100.200",
    "10.1",
    "192.168.257",
    "172.31.255.255",
    "198.18.0.1",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "someone@127.0.0.1",
    "example.com:80@127.0.0.1",
    "127.0.0.1\\@93.184.216.34",
    "127.0.0.1#@93.184.216.34",
    "127.0.0.1?@93.184.216.34",
    "93.184.216.34\\@127.0.0.1",
    "12\t7.0.0.1",
    "127.0.0\n.1",
    "127.0.0.1\r\nHost: elsewhere",
    "\t127.0.0.1",
    "127.0.0.1%00.example.com",
    "127.0.0.1\0.example.com",
    "127.0.0.1%09",
]


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("by_redirect", [False, True])
def test_no_spelling_of_a_private_address_is_connected_to(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch, host: str, by_redirect: bool
) -> None:
    studio = serve(reply(IMAGE))
    connected: list[str] = []
    real = connections.create_connection

    def connect(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
        if address[1] != studio.port:
            connected.append(address[0])
            raise ConnectionRefusedError
        return real(address, *args, **options)

    monkeypatch.setattr(connections, "create_connection", connect)
    url = f"http://{host}:1234/a.jpg"
    if by_redirect:
        studio.answer = lambda handler: redirect_raw(handler, url)
    error = failure(make_fetcher(), studio.url if by_redirect else url, Holder(studio.url))
    assert error.kind in {"forbidden_address", "dns", "bad_address", "unsupported", "unreachable", "http_error"}
    assert set(connected) <= {PUBLIC}
    assert len(studio.requests) <= 1 + by_redirect  # where half of the address is a path of its own


def redirect_raw(handler: Any, target: str) -> None:
    """A `Location` as it is, in UTF-8."""
    handler.close_connection = True
    handler.wfile.write(f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {target}\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([[PRIVATE]], "forbidden_address"),
        ([[PRIVATE, PUBLIC]], "forbidden_address"),
        ([["::1", PUBLIC]], "forbidden_address"),
        ([[PUBLIC, PRIVATE]], "unreachable"),
        ([[PUBLIC], [PRIVATE]], "unreachable"),
        ([[PUBLIC], [PUBLIC], [PRIVATE]], "unreachable"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_address_that_was_checked_is_connected_to(
    resolve: Callable[..., None], connected_to: list[str], answers: list[list[str]], kind: str, scheme: str
) -> None:
    resolve("rebind.example", *answers)
    assert failure(make_fetcher(), f"{scheme}://rebind.example/a.jpg").kind == kind
    assert connected_to == ([] if kind == "forbidden_address" else [PUBLIC])


def test_a_name_is_looked_up_anew_at_every_redirect(
    serve: StartServer, resolve: Callable[..., None], connected_to: list[str]
) -> None:
    resolve("rebind.example", [PUBLIC], [PRIVATE])
    fetcher = make_fetcher()
    assert failure(fetcher, "http://rebind.example/a.jpg").kind == "unreachable"
    assert failure(fetcher, "http://rebind.example/a.jpg").kind == "forbidden_address"
    assert connected_to == [PUBLIC]


def test_a_kind_does_not_follow_from_words_in_the_address(connected_to: list[str]) -> None:
    url = f"https://{PUBLIC}/timed%20out/refused/resolve/getaddrinfo.jpg"
    assert failure(make_fetcher(), url).kind == "unreachable"
    assert connected_to == [PUBLIC]


# Redirects


def test_a_redirect_back_and_forth_ends(serve: StartServer) -> None:
    studio, other = serve(reply(IMAGE)), serve(reply(IMAGE))
    studio.answer, other.answer = redirect(other.url), redirect(studio.url)
    assert failure(make_fetcher("127.0.0.1"), other.url, Holder(studio.url)).kind == "redirects"
    assert {request.headers.get("authorization") for request in studio.requests} == {TOKEN}
    assert {request.headers.get("authorization") for request in other.requests} == {None}


@pytest.mark.parametrize("status", [300, 304, 305, 306])
def test_other_answers_of_300_lead_nowhere(serve: StartServer, status: int) -> None:
    private = serve(reply(IMAGE))
    server = serve(reply(b"", status, Location=private.url))
    assert failure(make_fetcher("127.0.0.1"), server.url).kind == "http_error"
    assert private.requests == []


def test_label_studios_cookies_and_referer_go_nowhere(serve: StartServer) -> None:
    other = serve(reply(IMAGE))
    studio = serve(reply(b"", 302, Location=other.url + "/a", Set_Cookie="sessionid=s3cr3t; Domain=127.0.0.1"))
    make_fetcher("127.0.0.1").fetch(Remote(studio.url + "/?s3cr3t"), Holder(studio.url))
    assert "s3cr3t" not in str(other.requests[0].headers)


def test_a_login_in_an_address_is_not_sent(serve: StartServer) -> None:
    server = serve(reply(IMAGE))
    make_fetcher("127.0.0.1").fetch(Remote(f"http://someone:s3cr3t@127.0.0.1:{server.port}/a"), None)
    assert "authorization" not in server.requests[0].headers


# Proxies


@pytest.fixture
def proxy(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A proxy that the environment names; it answers all by itself, and makes no tunnels."""
    server = serve(reply(IMAGE))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", server.url)
    return server


def test_a_proxy_is_used_for_public_addresses(proxy: Any, resolve: Callable[..., None]) -> None:
    resolve("images.example", [PUBLIC])
    assert make_fetcher().fetch(Remote("http://images.example/a.jpg"), Holder("http://studio.invalid")).content == IMAGE
    assert proxy.requests[0].path == "http://images.example/a.jpg"
    assert proxy.requests[0].headers["host"] == "images.example"
    assert "authorization" not in proxy.requests[0].headers


@pytest.mark.parametrize("address", [PRIVATE, "169.254.169.254", "10.0.0.1", "::1"])
def test_a_proxy_is_not_asked_for_private_addresses(proxy: Any, resolve: Callable[..., None], address: str) -> None:
    resolve("images.example", [address])
    host = f"[{address}]" if ":" in address else address
    for url in ("http://images.example/a.jpg", "https://images.example/a.jpg", f"http://{host}/", f"https://{host}/"):
        assert failure(make_fetcher(), url).kind == "forbidden_address"
    assert proxy.requests == []


def test_names_that_only_the_proxy_knows_are_to_be_allowed(proxy: Any) -> None:
    url = "http://images.invalid/a.jpg"
    assert failure(make_fetcher(), url).kind == "dns"
    assert proxy.requests == []
    assert make_fetcher("images.invalid").fetch(Remote(url), None).content == IMAGE


def test_a_proxy_does_not_read_the_token(proxy: Any, serve: StartServer) -> None:
    studio = serve(reply(IMAGE))
    assert make_fetcher().fetch(Remote(studio.url), Holder(studio.url)).content == IMAGE
    assert studio.requests[0].headers["authorization"] == TOKEN
    assert proxy.requests == []


def test_a_tunnel_is_made_to_the_address_that_was_checked(
    listen: Callable[[Talk], int], resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def refuse(connection: socket.socket) -> None:
        asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listen(refuse)}")
    resolve("images.example", [PUBLIC], [PRIVATE])
    error = failure(make_fetcher(), "https://images.example/a.jpg", Holder("http://studio.invalid"))
    assert error.kind == "proxy"
    assert "HTTPS_PROXY" in str(error)
    assert asked[0].startswith(f"CONNECT {PUBLIC}:443 ".encode())
    assert b"s3cr3t" not in asked[0]


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "http://", "nothing"])
def test_a_proxy_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None], address: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    resolve("images.example", [PUBLIC])
    assert failure(make_fetcher(), "http://images.example/a.jpg").kind == "proxy"


# Answers that never end


def drip(connection: socket.socket, start: bytes, piece: bytes) -> None:
    """Half a second late, or a hundred times, whichever the client takes."""
    connection.recv(4096)
    connection.sendall(start)
    for _ in range(100):
        connection.sendall(piece)
        time.sleep(0.05)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "the status": (b"HTTP/1.1 2", b"0"),
    "headers": (OK, b"X: x\r\n"),
    "one header": (OK + b"X: ", b"x"),
    "a body without a length": (OK + b"\r\n", b"x"),
    "a body with a length": (OK + b"Content-Length: 5000\r\n\r\n", b"x"),
    "chunks": (CHUNKED, b"1\r\nx\r\n"),
    "a chunk's length": (CHUNKED, b"0"),
    "a chunk's extension": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"X: x\r\n"),
    "a packed body": (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], b"\0\0\0\xff\xff"),
    "answers before the answer": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.long
@pytest.mark.parametrize("start", DRIPS.values(), ids=DRIPS.keys())
def test_what_drips_is_given_up(listen: Callable[[Talk], int], start: tuple[bytes, bytes]) -> None:
    url = f"http://127.0.0.1:{listen(lambda connection: drip(connection, *start))}/a.jpg"
    assert failure(make_fetcher("127.0.0.1", timeout_s=0.3), url).kind == "timeout"


def test_what_drips_through_a_proxy_is_given_up(
    listen: Callable[[Talk], int], resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listen(lambda connection: drip(connection, *DRIPS["headers"]))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    resolve("images.example", [PUBLIC])
    assert failure(make_fetcher(timeout_s=0.3), "http://images.example/a.jpg").kind == "timeout"


def test_a_tls_handshake_that_drips_is_given_up(listen: Callable[[Talk], int]) -> None:
    port = listen(lambda connection: drip(connection, b"\x16\x03\x03\x40\x00", b"\2"))
    assert failure(make_fetcher("127.0.0.1", timeout_s=0.3), f"https://127.0.0.1:{port}/a.jpg").kind == "timeout"


def flood(connection: socket.socket, start: bytes, piece: bytes) -> None:
    connection.recv(4096)
    connection.sendall(start)
    for _ in range(200_000_000 // len(piece)):
        connection.sendall(piece)


FLOODS = {
    "the status": (b"HTTP/1.1 200 ", b"x" * 60_000, {"unreachable"}),
    "headers": (OK, b"X-Some: thing\r\n" * 5000, {"unreachable"}),
    "one header": (OK + b"X: ", b"x" * 60_000, {"unreachable"}),
    "a body": (OK + b"\r\n", b"x" * 60_000, {"too_large"}),
    "a body of 5 bytes": (OK + b"Content-Length: -5\r\n\r\n", b"x" * 60_000, {"too_large", "http_error"}),
    "a chunk": (CHUNKED + b"7fffffffffffffff\r\n", b"x" * 60_000, {"too_large"}),
    "a chunk's length": (CHUNKED, b"0" * 60_000, {"unreachable"}),
    "a chunk's extension": (CHUNKED + b"1;", b"x" * 60_000, {"unreachable"}),
    "trailers": (CHUNKED + b"0\r\n", b"X: x\r\n" * 10_000, {"timeout", "unreachable"}),
    "answers before the answer": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, {"timeout", "unreachable"}),
}


@pytest.mark.long
@pytest.mark.parametrize(("start", "piece", "kinds"), FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_is_given_up_in_little_memory(
    listen: Callable[[Talk], int], start: bytes, piece: bytes, kinds: set[str]
) -> None:
    port = listen(lambda connection: flood(connection, start, piece))
    fetcher = make_fetcher("127.0.0.1", timeout_s=0.5)
    tracemalloc.start()
    try:
        error = failure(fetcher, f"http://127.0.0.1:{port}/a.jpg")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.kind in kinds
    assert peak_bytes < 20_000_000


BOMBS: dict[str, tuple[str, tuple[Callable[[bytes], bytes], ...]]] = {
    "gzip": ("gzip", (gzip.compress,)),
    "deflate": ("deflate", (zlib.compress,)),
    "gzip twice": ("gzip, gzip", (gzip.compress, gzip.compress)),
    "many times": (", ".join(["gzip"] * 50), (gzip.compress, gzip.compress)),
}


@pytest.mark.long
@pytest.mark.parametrize(("encoding", "packings"), BOMBS.values(), ids=BOMBS.keys())
def test_a_packed_body_is_unpacked_in_little_memory(
    serve: StartServer, encoding: str, packings: tuple[Callable[[bytes], bytes], ...]
) -> None:
    content = bytes(60_000_000)
    for pack in packings:
        content = pack(content)
    server = serve(reply(content, Content_Encoding=encoding))
    tracemalloc.start()
    try:
        error = failure(make_fetcher("127.0.0.1"), server.url)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.kind in {"too_large", "http_error"}
    assert peak_bytes < 10_000_000


# Answers that aren't what they say


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"the bytes of an image",
        b"ICY 200 OK\r\n\r\nx",
        b"HTTP/0.9 200 OK\r\n",
        b"HTTP/9.9 200 OK\r\nContent-Length: 9\r\n\r\nx",
        b"HTTP/1.1 twohundred OK\r\n\r\nx",
        b"HTTP/1.1 99999 OK\r\n\r\nx",
        b"HTTP/1.1 -200 OK\r\n\r\nx",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/9\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nx",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999999\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n9",
        b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://\x00/\r\n\r\n",
    ],
)
def test_an_answer_that_makes_no_sense_is_told(listen: Callable[[Talk], int], answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    error = failure(make_fetcher("127.0.0.1", timeout_s=1), f"http://127.0.0.1:{listen(talk)}/a.jpg")
    assert error.kind in {"unreachable", "http_error", "empty", "bad_address", "redirects"}


@pytest.mark.filterwarnings("ignore:.*<socket")  # urllib3 leaves it to the garbage collector to close that one
def test_two_lengths_are_told(listen: Callable[[Talk], int]) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(OK + b"Content-Length: 1, 2\r\n\r\nxx")

    assert failure(make_fetcher("127.0.0.1"), f"http://127.0.0.1:{listen(talk)}/a.jpg").kind == "http_error"
    gc.collect()


@pytest.mark.long
def test_any_answer_is_bytes_or_told(listen: Callable[[Talk], int]) -> None:
    answer = b""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    port = listen(talk)
    fetcher = make_fetcher("127.0.0.1", timeout_s=1)
    parts = st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\n", b"HTTP/1.0 200\r\n", b"\r\n", b"Location: ", b"http://",
            b"Transfer-Encoding: chunked\r\n", b"Content-Length: ", b"Content-Encoding: gzip\r\n", b"5", b"0\r\n", b":",
            b"Set-Cookie: a=b\r\n", b"\xff", b"\0", b" ", b"Content-Encoding: deflate, gzip\r\n", b"127.0.0.1:1/",
        ]
    )  # fmt: skip

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(parts, st.binary(max_size=20)), max_size=12).map(b"".join))
    def check(content: bytes) -> None:
        nonlocal answer
        answer = content
        with suppress(ImageError):
            assert fetcher.fetch(Remote(f"http://127.0.0.1:{port}/a.jpg"), None).content

    check()


# TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that nobody vouches for, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            shutil.which("openssl") or "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def tls_port(listen: Callable[[Talk], int], certificate: tuple[Path, Path]) -> int:
    """A TLS server that always answers with the image."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(OK + f"Content-Length: {len(IMAGE)}\r\n\r\n".encode() + IMAGE)

    return listen(talk)


def test_a_certificate_that_nobody_vouches_for_is_told(tls_port: int) -> None:
    studio = Holder(f"https://localhost:{tls_port}")
    assert failure(make_fetcher(), f"{studio.url}/a.jpg", studio).kind == "tls"


def test_a_certificate_of_another_name_is_told(
    tls_port: int, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    fetcher = make_fetcher("127.0.0.1", "localhost")
    assert failure(fetcher, f"https://127.0.0.1:{tls_port}/a.jpg").kind == "tls"
    assert fetcher.fetch(Remote(f"https://localhost:{tls_port}/a.jpg"), None).content == IMAGE
