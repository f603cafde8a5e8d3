"""Who answers in Label Studio's place, or nobody: told by the cause, in a line that Label Studio shows whole."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from tests.harness.http_server import Answer, StartServer, redirect, reply
from yolo_backend.label_studio.errors import StudioError, StudioMissingError, StudioRefusedError, StudioRejectedError
from yolo_backend.label_studio.in_between import explain_silence, explain_stranger
from yolo_backend.label_studio.studio import Studio
from yolo_backend.label_studio.studios import Studios
from yolo_backend.settings import load_settings

pytestmark = pytest.mark.usefixtures("clean_environment")

TOKEN = "0123456789abcdef" * 2 + "01234567"
SECRET = "s3cr3t"
AROUND = "let the backend through, or set LABEL_STUDIO_URL to an address that goes around it"
FIRST_PAGE = "set LABEL_STUDIO_URL to the address of Label Studio's first page"
NGINX_404 = b"<html>\r\n<head><title>404 Not Found</title></head><body><hr><center>nginx</center></body></html>"
PLAIN_TO_TLS = b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>"


def to(target: str, status: int = 302) -> Answer:
    """A redirect to the target, in which `{path}` is what was asked for."""
    return lambda handler: redirect(target.format(path=handler.path), status)(handler)


CASES: dict[str, tuple[Answer, str]] = {
    "301 to https": (
        to("https://studio.example{path}", 301),
        "{url} answers a redirect to https://studio.example: set LABEL_STUDIO_URL to that",
    ),
    "308 to https, at a port": (
        to("https://127.0.0.1:8443{path}", 308),
        "{url} answers a redirect to https://127.0.0.1:8443: set LABEL_STUDIO_URL to that",
    ),
    "to https, with a query and a login": (
        to(f"https://me:{SECRET}@studio.example{{path}}?token={SECRET}#{SECRET}", 301),
        "{url} answers a redirect to https://studio.example: set LABEL_STUDIO_URL to that",
    ),
    "to a path": (
        to("/label-studio{path}", 301),
        "{url} answers a redirect to {url}/label-studio: set LABEL_STUDIO_URL to that",
    ),
    "to https, its first page": (
        to("https://127.0.0.1/", 301),
        "{url} answers a redirect to https://127.0.0.1: set LABEL_STUDIO_URL to that",
    ),
    "Cloudflare Access": (
        to(f"https://team.cloudflareaccess.com/cdn-cgi/access/login/studio.example?kid={SECRET}&meta={SECRET}"),
        "A proxy in front of Label Studio asks for a login (it leads to team.cloudflareaccess.com): " + AROUND,
    ),
    "oauth2-proxy, on the same host": (
        to(f"/oauth2/start?rd={SECRET}"),
        f"A proxy in front of Label Studio asks for a login (it leads to 127.0.0.1): {AROUND}",
    ),
    "Authelia": (
        to(f"https://auth.example/?rd=https%3A%2F%2Fstudio.example%2F&rm={SECRET}"),
        f"A proxy in front of Label Studio asks for a login (it leads to auth.example): {AROUND}",
    ),
    "Keycloak": (
        to(f"https://sso.example/realms/ours/protocol/openid-connect/auth?state={SECRET}"),
        f"A proxy in front of Label Studio asks for a login (it leads to sso.example): {AROUND}",
    ),
    "a page for the time being": (
        to("https://status.example/maintenance?since=1"),
        f"{{url}} leads to status.example, and not to Label Studio's API: {AROUND}",
    ),
    "Label Studio's own login": (
        to("/user/login/?next={path}"),
        f"{{url}} leads to a login page, and not to Label Studio's API: {FIRST_PAGE}",
    ),
    "to nowhere": (to("mailto:me@example.com"), f"{{url}} answers a redirect to nowhere: {FIRST_PAGE}"),
    "without a target": (reply(b"", 302), f"{{url}} answers a redirect to nowhere: {FIRST_PAGE}"),
    "a login by Basic": (
        reply(b"<html>401 Authorization Required</html>", 401, WWW_Authenticate='Basic realm="Members"'),
        f"A proxy in front of Label Studio at {{url}} asks for a login (401): {AROUND}",
    ),
    "a gateway's JSON": (
        reply(b'{"message": "No API key found in request"}', 401),
        f"A proxy in front of Label Studio at {{url}} asks for a login (401): {AROUND}",
    ),
    "a refusal": (
        reply(b"<html><title>Attention Required!</title></html>", 403),
        f'A proxy in front of Label Studio at {{url}} refuses the backend (403 "Attention Required!"): {AROUND}',
    ),
    "a web page": (
        reply(b"<!doctype html><title>Welcome to nginx!</title>"),
        '{url} answers with a web page "Welcome to nginx!", and not as Label Studio does: '
        f"{FIRST_PAGE}, not of a login",
    ),
    "no such path": (
        reply(NGINX_404, 404),
        f"{{url}} isn't Label Studio's address (404): {FIRST_PAGE}, with its path, as in https://host/label-studio",
    ),
    "a host that isn't allowed": (
        reply(b"<title>Bad Request (400)</title>", 400),
        "{url} answers 400, and not as Label Studio does: see that Label Studio's ALLOWED_HOSTS and the proxy before "
        "it take this host name",
    ),
    "https alone": (reply(PLAIN_TO_TLS, 400), "{url} wants https: set LABEL_STUDIO_URL to {https}"),
    "502": (
        reply(b"<title>502 Bad Gateway</title>", 502),
        "{url} answers 502: the proxy there can't reach Label Studio: see that it runs, then the proxy's log",
    ),
    "503": (
        reply(b"", 503),
        "{url} answers 503: Label Studio is starting, or stopped: see that it runs, then the proxy's log",
    ),
    "504": (
        reply(b"", 504),
        "{url} answers 504: Label Studio takes longer than the proxy before it waits: see its log, or raise the "
        "proxy's time-out",
    ),
    "Cloudflare's 521": (
        reply(b"", 521),
        "{url} answers 521: the proxy there can't reach Label Studio: see that it runs, then the proxy's log",
    ),
    "429": (
        reply(b"slow down", 429),
        "A proxy in front of Label Studio at {url} wants fewer requests (429): raise its limit",
    ),
}
every_case = pytest.mark.parametrize(("answer", "told"), CASES.values(), ids=CASES.keys())


def check(studio: Studio) -> None:
    studio.check()


def call(studio: Studio) -> Any:
    return studio.call("GET", "/api/projects/7/", "title", 5, query={"include": "title"})


@every_case
@pytest.mark.parametrize("ask", [check, call])
def test_who_answers_is_told_to_setup_and_to_commands(
    serve: StartServer, answer: Answer, told: str, ask: Callable[[Studio], Any]
) -> None:
    server = serve(answer)

    with pytest.raises(StudioError) as raised:
        ask(Studio(server.url, TOKEN))

    message = str(raised.value)
    assert message == told.format(url=server.url, https=server.url.replace("http:", "https:"))
    assert len(message) <= 240
    assert message.isascii()
    assert not isinstance(raised.value, StudioMissingError), "nothing is known of what is there"


@every_case
def test_who_answers_is_told_without_a_token_too(serve: StartServer, answer: Answer, told: str) -> None:
    """LABEL_STUDIO_URL alone, and a token that comes with /setup or not at all."""
    server = serve(answer)
    studios = Studios(load_settings(label_studio_url=server.url))

    with pytest.raises(StudioError) as raised:
        studios.check("7.1")

    assert str(raised.value) == told.format(url=server.url, https=server.url.replace("http:", "https:"))


@dataclass
class Given:
    """An answer as long as answers may be."""

    status_code: int
    location: str = ""
    json: Any = None
    head: bytes = b"<title>" + b"a long title " * 10 + b"</title>"

    @property
    def headers(self) -> dict[str, str]:
        return {"Location": self.location}


@pytest.mark.parametrize("status", [200, 301, 302, 400, 401, 403, 404, 413, 429, 500, 502, 503, 504, 521, 599])
@pytest.mark.parametrize(
    "location", ["https://sso." + "a" * 300 + "/login", "https://" + "a" * 300 + "{path}", "/elsewhere", "x://["]
)
def test_a_long_address_leaves_room_for_what_to_do(status: int, location: str) -> None:
    url = "https://label-studio.annotation.internal.a-company-of-some-size.example/tools/label-studio-for-all"
    path = "/api/projects/7/"

    trouble = explain_stranger(Given(status, location.format(path=path)), url, path)

    assert trouble is not None
    assert len(str(trouble)) <= 240, str(trouble)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        socket.gaierror(),
        requests.exceptions.ProxyError(),
        ConnectionResetError(),
        ssl.SSLError(),
        OSError(),
    ],
)
@pytest.mark.parametrize("host", ["localhost:8080", "label-studio.annotation.internal.a-company-of-some-size.example"])
def test_silence_leaves_room_for_what_to_do(error: Exception, host: str) -> None:
    trouble = explain_silence(error, f"http://{host}/tools/label-studio-for-all/of-us")
    assert len(str(trouble)) <= 240, str(trouble)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_slash_at_the_end_is_no_stranger(serve: StartServer, slash: str) -> None:
    """Label Studio itself sends /health on to /health/."""
    server = serve(lambda handler: redirect(handler.path + slash, 301)(handler))
    Studio(server.url, None).check()
    Studio(server.url + "/prefix", None).check()


@pytest.mark.parametrize("status", [401, 403])
def test_a_proxys_login_is_no_refused_token(serve: StartServer, status: int) -> None:
    server = serve(reply(b"<html>", status, WWW_Authenticate="Basic"))
    with pytest.raises(StudioRefusedError) as raised:
        call(Studio(server.url, TOKEN))
    assert "refuses the token" not in str(raised.value)


def test_a_limit_of_a_proxy_is_told_where_something_is_sent(serve: StartServer) -> None:
    server = serve(reply(b"<html><title>413 Request Entity Too Large</title></html>", 413))
    with pytest.raises(StudioRejectedError) as raised:
        Studio(server.url, TOKEN).import_predictions(7, [{"task": 1, "result": []}])
    assert str(raised.value) == (
        f"A proxy in front of Label Studio takes no request of this size (413 at {server.url}): raise its limit, which "
        "nginx calls client_max_body_size"
    )


# What Label Studio itself answers


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (403, "Label Studio doesn't let the token's user do that (403 at /api/projects/7/: Some words): give that"),
        (404, "Label Studio shows the token's user no project 7: was it deleted, or is it of another organization?"),
        (500, "Label Studio at {url} fails with 500 at /api/projects/7/: see its log"),
    ],
)
def test_what_is_wrong_in_label_studio_is_told_as_its_own(serve: StartServer, status: int, told: str) -> None:
    server = serve(reply(json.dumps({"detail": "Some words", "status_code": status}).encode(), status))
    with pytest.raises(StudioError) as raised:
        call(Studio(server.url, TOKEN))
    assert str(raised.value).startswith(told.format(url=server.url))


# Nobody


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_refused_connection_on_this_machine_tells_of_containers() -> None:
    url = f"http://localhost:{closed_port()}"
    with pytest.raises(StudioError) as raised:
        Studio(url, TOKEN).check()
    assert str(raised.value) == (
        f"Label Studio doesn't answer at {url} (connection refused): start it, or correct LABEL_STUDIO_URL; in a "
        "container, localhost is the container itself: use host.docker.internal or the service's name"
    )
    assert len(str(raised.value)) <= 240


def test_a_name_that_cannot_be_looked_up_is_told() -> None:
    with pytest.raises(StudioError) as raised:
        Studio("http://label-studio.invalid:8080", TOKEN).check()
    assert str(raised.value) == (
        "Label Studio doesn't answer at http://label-studio.invalid:8080 (unknown host name): correct LABEL_STUDIO_"
        "URL: it should be the address as the backend's machine or container reaches it"
    )


def test_a_proxy_that_cannot_pass_it_on_is_told(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(reply(b"", 407))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http://", f"http://me:{SECRET}@"))
    monkeypatch.delenv("https_proxy", raising=False)
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "")
    with pytest.raises(StudioError) as raised:
        Studio("https://studio.invalid", TOKEN).check()
    assert str(raised.value) == (
        "Label Studio doesn't answer at https://studio.invalid (the proxy doesn't pass it on): correct HTTPS_PROXY, or "
        "name studio.invalid in NO_PROXY"
    )


def test_an_answer_that_is_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def talk() -> None:
            connection, _ = server.accept()
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            connection.close()

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(StudioError) as raised:
            Studio(url, TOKEN).check()
    assert str(raised.value) == (
        f"Label Studio doesn't answer at {url} (the connection broke off): see its log, and that LABEL_STUDIO_URL is "
        "its address, or write https:// where it wants that"
    )
