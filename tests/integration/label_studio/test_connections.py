"""Kept connections to Label Studio over TLS, after a fork, and at a process's end: these need processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler

import pytest

from tests.harness.certificates import Certificates
from tests.harness.http_server import StartServer, reply
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.studio import Studio

TOKEN = "0123456789abcdef" * 2 + "01234567"

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_connections_over_tls_are_kept_and_those_closed_meanwhile_are_noticed(
    serve: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    asked: Counter[int] = Counter()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked[handler.client_address[1]] += 1
        if asked[handler.client_address[1]] == 4:
            handler.close_connection = True  # it has read the request
            return
        reply(b'{"x": 1}')(handler)
        if handler.path == "/idle":
            handler.connection.settimeout(0.02)

    server = serve(answer, tls=certificates.context("good"))
    studio = Studio(server.url, TOKEN)
    for path in ("/a", "/b", "/c", "/d", "/e", "/idle"):
        assert studio.call("GET", path, "x", 5) == 1
    assert list(asked.values()) == [4, 1, 2]
    time.sleep(0.2)
    assert studio.call("GET", "/f", "x", 5) == 1
    assert studio.call("POST", "/g", "x", 5) == 1
    assert list(asked.values()) == [4, 1, 2, 1, 1]
    assert [request.path for request in server.requests] == ["/a", "/b", "/c", "/d", "/d", "/e", "/idle", "/f", "/g"]


def test_a_kept_connection_does_not_lend_its_trust_to_other_authorities(
    serve: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(reply(b'{"x": 1}'), tls=certificates.context("good"))
    studio = Studio(server.url, TOKEN)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    studio.call("GET", "/a", "x", 5)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(StudioError, match="authority that isn't known here"):
        studio.call("GET", "/a", "x", 5)


_FORKING = """
import os, sys
from yolo_backend.label_studio.studio import Studio

studio = Studio(sys.argv[1], sys.argv[2])
studio.call("GET", "/before", "x", 5)
child = os.fork()
status = os.waitpid(child, 0)[1] if child else 0  # one after the other, so that both could use the same connection
for _ in range(3):
    studio.call("GET", "/parent" if child else "/child", "x", 5)
sys.exit(status)
"""


def test_after_a_fork_each_has_its_own_and_none_is_left_open(serve: StartServer) -> None:
    paths: dict[int, list[str]] = {}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        paths.setdefault(handler.client_address[1], []).append(handler.path)
        reply(b'{"x": 1}')(handler)

    command = [sys.executable, "-X", "dev", "-W", "error", "-c", _FORKING, serve(answer).url, TOKEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(paths.values()) == [["/before", "/parent", "/parent", "/parent"], ["/child"] * 3]
