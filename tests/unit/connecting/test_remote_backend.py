"""A backend seen from outside: against a real one, and against what isn't one."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from tests.harness.http_server import Answer, StartServer, redirect, reply
from yolo_backend.connecting.remote_backend import BackendError, BackendLoginError, RemoteBackend

INDEX = {"model_class": "YoloBackend", "status": "UP"}
LOGIN = f"Basic {b64encode(b'me:secret').decode()}"


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"<html></html>"),
        reply(b'{"status": "UP"}'),
        reply(b"[]"),
        reply(b"", 404),
        reply(b"Bad Gateway", 502),
        redirect("https://elsewhere.example/"),
    ],
)
def test_what_is_no_backend_is_told_apart(serve: StartServer, answer: Answer) -> None:
    server = serve(answer)

    with pytest.raises(BackendError, match="isn't this backend"):
        RemoteBackend(server.url).index()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1", "connection refused"),
        ("http://no.such.host.invalid", "unknown host name"),
        ("http://[", "that is no address"),
        ("x", "that is no address"),
    ],
)
def test_nobody_there_is_told_with_what_to_do(url: str, reason: str) -> None:
    with pytest.raises(BackendError, match=rf"^no backend answers at .* \({reason}\)$") as caught:
        RemoteBackend(url).index()

    assert "Start it" in caught.value.fix


def test_a_redirect_of_the_backend_tells_where_to(serve: StartServer) -> None:
    server = serve(redirect("https://yolo.example:8443/?token=s3cr3t"))

    with pytest.raises(BackendError) as caught:
        RemoteBackend(server.url).index()

    assert str(caught.value).endswith("(302) isn't this backend, and leads to yolo.example:8443")


def test_the_login_goes_along_and_into_no_message(serve: StartServer) -> None:
    server = serve(reply(json.dumps(INDEX).encode()))
    backend = RemoteBackend(server.url, ("me", "secret"))

    assert backend.index() == INDEX
    assert server.requests[0].headers["authorization"] == LOGIN
    assert "secret" not in repr(backend)


@pytest.mark.parametrize(
    ("basic_auth", "message"), [(None, "asks for a login"), (("me", "other"), "refuses the login")]
)
def test_a_login_that_is_missing_or_wrong(serve: StartServer, basic_auth: tuple[str, str] | None, message: str) -> None:
    server = serve(reply(b"{}", 401))

    with pytest.raises(BackendLoginError, match=message):
        RemoteBackend(server.url, basic_auth).index()


def test_a_header_is_tried_as_it_is(serve: StartServer) -> None:
    server = serve(lambda handler: reply(b"{}", 200 if handler.headers["Authorization"] == LOGIN else 401)(handler))
    backend = RemoteBackend(server.url, ("me", "secret"))

    assert backend.lets_in(LOGIN)
    assert not backend.lets_in("Basic eDp5")
    assert not backend.lets_in(None)


def test_the_reason_of_a_refused_project_is_the_backends(serve: StartServer) -> None:
    server = serve(reply(b'{"error": "None of the labels Car is a class of x.pt"}', 422))

    with pytest.raises(BackendError, match=r"None of the labels Car is a class of x\.pt"):
        RemoteBackend(server.url).setup("7.1700000000", "<View/>")

    assert json.loads(server.requests[0].body) == {"project": "7.1700000000", "schema": "<View/>"}
