"""Servers that misbehave on purpose, each on real sockets of this machine."""

from __future__ import annotations

import contextlib
import itertools
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import jwt

from tests.faults.images import gzip_of_gzip_of_zeros, gzip_of_zeros, photo_file

Answer = Callable[[socket.socket], None]

_LONGEST_HANG_S = 60.0
_MAX_HEAD_BYTES = 4 << 20
_DRIP_EVERY_S = 0.05
_TLS_HELLO = b"\x16\x03"
PERSONAL_TOKEN = jwt.encode({"token_type": "refresh", "exp": 2**31}, "a key of the fault table's own, 32 bytes")
ACCESS_TOKEN = jwt.encode({"token_type": "access", "exp": 2**31}, "a key of the fault table's own, 32 bytes")
REFUSED_PERSONAL_TOKEN = jwt.encode({"token_type": "refresh", "exp": 1}, "a key of the fault table's own, 32 bytes")
LEGACY_TOKEN = "5ec7e7f0" * 5
SIGNATURE = "5167a7u2e" * 4  # as presigned addresses hold one
SECRETS = (SIGNATURE, PERSONAL_TOKEN, ACCESS_TOKEN, REFUSED_PERSONAL_TOKEN, LEGACY_TOKEN)


# Answers of the hostile server


def plain(status: str, *headers: str, body: bytes = b"") -> Answer:
    """A whole answer, with a true Content-Length unless `headers` say otherwise."""
    given = " ".join(headers).lower()
    length = () if "content-length" in given or "transfer-encoding" in given else (f"Content-Length: {len(body)}",)
    return raw(_head(status, *length, *headers) + body)


def raw(content: bytes) -> Answer:
    """These bytes, then the end of the connection."""
    return lambda connection: connection.sendall(content)


def made(make: Callable[[], bytes]) -> Answer:
    """The bytes that `make` makes, then the end of the connection."""
    return lambda connection: connection.sendall(make())


def redirect(location: str) -> Answer:
    """A redirect to this address."""
    return plain("302 Found", f"Location: {location}")


def then_hang(content: bytes = b"") -> Answer:
    """These bytes, and then nothing until the client hangs up."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(content)
        wait_for_hangup(connection)

    return answer


def drip(content: bytes, then: bytes) -> Answer:
    """First these bytes at once, then `then` over and over, a byte at a time, until the client hangs up."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(content)
        ends_at = time.monotonic() + _LONGEST_HANG_S
        for byte in itertools.cycle(then):
            if time.monotonic() > ends_at:
                return
            connection.sendall(bytes([byte]))
            time.sleep(_DRIP_EVERY_S)

    return answer


def then_reset(content: bytes = b"") -> Answer:
    """These bytes, and then a reset of the connection."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(content)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def endless(head: bytes, piece: bytes) -> Answer:
    """This head, then `piece` as often as the client takes it."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        ends_at = time.monotonic() + _LONGEST_HANG_S
        while time.monotonic() < ends_at:
            connection.sendall(piece)

    return answer


def ok_head(*headers: str) -> bytes:
    """The head of a good answer, with these headers alone."""
    return _head("200 OK", *headers)


def photo_head() -> bytes:
    """The head that the photo should have."""
    return ok_head(f"Content-Length: {len(photo_file())}")


def chunked(*chunks: bytes) -> bytes:
    """The head of a chunked answer and these chunks, without the chunk that ends them."""
    body = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    return ok_head("Transfer-Encoding: chunked") + body


def zipped_bomb() -> bytes:
    """An answer that unpacks to 256 MiB."""
    body = gzip_of_zeros()
    return ok_head(f"Content-Length: {len(body)}", "Content-Encoding: gzip") + body


def zipped_twice_bomb() -> bytes:
    """An answer that unpacks, twice, to 4 GiB."""
    body = gzip_of_gzip_of_zeros()
    return ok_head(f"Content-Length: {len(body)}", "Content-Encoding: gzip, gzip") + body


def wait_for_hangup(connection: socket.socket) -> None:
    """Wait until the other side closes the connection."""
    while connection.recv(1 << 16):
        pass


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode()


# The servers


@dataclass
class HostileServer:
    """Answers `/<name>/...` by the answer of that name; with the photo where there is none, or where it is healed."""

    answers: Mapping[str, Answer]
    port: int = 0
    healed: set[str] = field(default_factory=set)
    authorizations: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, connection: socket.socket) -> None:
        """Answer one request."""
        head = _read_head(connection)
        if head.startswith(_TLS_HELLO):
            plain("400 Bad Request", body=b"plain HTTP only")(connection)
            return
        words = head.split(b" ", 2)
        if len(words) < 3:
            return
        self.authorizations += [line for line in head.decode("latin-1").split("\r\n") if _is_authorization(line)]
        name = words[1].decode("latin-1").split("/")[1]
        answer = None if name in self.healed else self.answers.get(name)
        (answer or plain("200 OK", body=photo_file()))(connection)


@dataclass
class FakeStudio:
    """The part of a Label Studio that images need: uploads, presigned addresses, and the exchange of a token."""

    elsewhere: str
    port: int = 0
    refused_once: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request; what is asked for stands in the path."""
        path = urlsplit(handler.path).path
        if path == "/api/token/refresh/":
            self._exchange(handler)
        elif path == "/health":
            _reply(handler, 200)
        elif not (handler.headers.get("Authorization") or "").endswith((ACCESS_TOKEN, LEGACY_TOKEN)):
            _reply(handler, 401)
        elif "/401-once/" in path and path not in self.refused_once:
            self.refused_once.add(path)
            _reply(handler, 401)
        elif "/401-always/" in path:
            _reply(handler, 401)
        elif "/503/" in path:
            _reply(handler, 503)
        elif "/login/" in path:
            _reply(handler, 302, Location=f"/user/login/?next={path}")
        elif "/elsewhere/" in path:
            _reply(handler, 302, Location=f"{self.elsewhere}/good/")
        elif "/presign/" in path:
            _reply(handler, 302, Location=f"{self.elsewhere}/404/")
        elif "/hang/" in path:
            wait_for_hangup(handler.connection)
        elif path.startswith("/data/upload/"):
            _reply(handler, 200, photo_file())
        else:
            _reply(handler, 404)

    def _exchange(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if REFUSED_PERSONAL_TOKEN.encode() in body:
            _reply(handler, 401, b'{"detail": "Token is invalid or expired"}')
        else:
            _reply(handler, 200, f'{{"access": "{ACCESS_TOKEN}"}}'.encode())


@dataclass(frozen=True)
class World:
    """The addresses where things go wrong."""

    hostile: HostileServer
    studio: FakeStudio
    self_signed_url: str
    silent_tls_url: str
    full_url: str
    closed_url: str


@contextlib.contextmanager
def world(answers: Mapping[str, Answer], folder: Path) -> Iterator[World]:
    """Start all the servers, and stop them at the end. A certificate is written into `folder`."""
    hostile = HostileServer(answers)
    for make in (gzip_of_zeros, gzip_of_gzip_of_zeros):  # now, for they take longer than an image may
        make()
    with contextlib.ExitStack() as stack:
        hostile.port = stack.enter_context(_socket_server(hostile.serve))
        studio = FakeStudio(elsewhere=hostile.url)
        studio.port = stack.enter_context(_studio_server(studio))
        tls_port = stack.enter_context(_socket_server(_with_tls(hostile.serve, folder)))
        yield World(
            hostile=hostile,
            studio=studio,
            self_signed_url=f"https://127.0.0.1:{tls_port}",
            silent_tls_url=f"https://127.0.0.1:{stack.enter_context(_socket_server(wait_for_hangup))}",
            full_url=f"http://127.0.0.1:{stack.enter_context(_port_that_accepts_nobody())}",
            closed_url=f"http://127.0.0.1:{_closed_port()}",
        )


@contextlib.contextmanager
def _socket_server(serve: Answer) -> Iterator[int]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(_LONGEST_HANG_S)
            with contextlib.suppress(OSError):  # the client hangs up: that is what it should do
                serve(self.request)

    with _running(_ThreadingTcpServer(("127.0.0.1", 0), Handler)) as port:
        yield port


@contextlib.contextmanager
def _studio_server(studio: FakeStudio) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _LONGEST_HANG_S

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                studio.answer(self)

        do_POST = do_PATCH = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.block_on_close = False
    with _running(server) as port:
        yield port


class _ThreadingTcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        # Not the parent's, which ends the connection in good order where an answer wants it reset.
        if isinstance(request, socket.socket):
            self.close_request(request)


@contextlib.contextmanager
def _running(server: socketserver.TCPServer) -> Iterator[int]:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def _with_tls(serve: Answer, folder: Path) -> Answer:
    """The same answers behind a certificate that nobody signed."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve_tls(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            serve(secured)

    return serve_tls


@contextlib.contextmanager
def _port_that_accepts_nobody() -> Iterator[int]:
    """A port whose queue of connections is full, so that the next one is never answered."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD_BYTES:
        piece = connection.recv(1 << 16)
        if not piece:
            break
        head += piece
        if head.startswith(_TLS_HELLO):
            break
    return head


def _is_authorization(line: str) -> bool:
    return line.lower().startswith("authorization:")


def _reply(handler: BaseHTTPRequestHandler, status: int, content: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
