"""Real HTTP servers that record what they are asked, and say what a test wants."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class RecordedRequest:
    """A request as the server saw it; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class RecordingServer:
    """A real HTTP server on 127.0.0.1. `answer` may be changed while it runs."""

    answer: Answer
    port: int = 0
    requests: list[RecordedRequest] = field(default_factory=list)
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


class StartServer(Protocol):
    """Starts a server that answers so; over TLS, where its side of it is given."""

    def __call__(self, answer: Answer, /, *, tls: ssl.SSLContext | None = None) -> RecordingServer: ...


def reply(content: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer that is the same for each request; `Some_Header="x"` becomes `Some-Header: x`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = "Content_Length" in headers  # one that may not be true
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def redirect(target: str, status: int = 302) -> Answer:
    """An answer that sends on to `target`."""
    return reply(b"", status, Location=target)


@dataclass(frozen=True)
class ServedFolder:
    """A folder that a plain web server serves."""

    path: Path
    url: str


ETAG = '"v1"'


LONG_AGO = "Mon, 01 Jan 2024 00:00:00 GMT"


def conditional(content: bytes, /, **headers: Any) -> Answer:
    """An answer that is 304 for who knows this version."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = (handler.headers["If-None-Match"], handler.headers["If-Modified-Since"])
        knows = asked != (None, None) and asked in {(headers.get("ETag"), None), (None, headers.get("Last_Modified"))}
        (reply(b"", 304, **headers) if knows else reply(content, **headers))(handler)

    return answer


def conditions_seen(server: RecordingServer) -> list[str | None]:
    return [
        request.headers.get("if-none-match") or request.headers.get("if-modified-since") for request in server.requests
    ]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ssl.SSLError | ConnectionError):  # of one who refuses our certificate
            super().handle_error(request, client_address)


@contextmanager
def http_servers() -> Iterator[StartServer]:
    """Starts servers on 127.0.0.1; they end with the block."""
    running: list[ThreadingHTTPServer] = []

    def start(answer: Answer, /, *, tls: ssl.SSLContext | None = None) -> RecordingServer:
        recording = RecordingServer(answer, scheme="https" if tls else "http")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                recording.requests.append(RecordedRequest(self.command, self.path, headers, body))
                with suppress(ConnectionError):  # a client may hang up: that is what some tests are about
                    recording.answer(self)

            do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = _Server(("127.0.0.1", 0), Handler)
        if tls:  # the handshake is made by the connection's own thread
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.daemon_threads = True
        server.block_on_close = False
        recording.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(server)
        return recording

    try:
        yield start
    finally:
        for server in running:
            server.shutdown()
            server.server_close()
