"""What is told of an image's server that can't be reached: its host, and what to write; never a signature."""

from __future__ import annotations

import itertools
import socket

import pytest

from tests.harness.http_server import StartServer, redirect, reply
from yolo_backend.images.errors import ImageError
from yolo_backend.images.explaining import allowing
from yolo_backend.images.fetch import ImageFetcher
from yolo_backend.images.sources import Remote
from yolo_backend.settings import load_settings

SECRET = "s3cr3t"
PRESIGNED = f"?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}"


class Holder:
    """Label Studio as the fetcher needs it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def authorization(self, *, renew: bool = False) -> str | None:
        return None if renew else f"Token {SECRET}"

    def must_ask(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, name in itertools.product(["http", "https", "all", "no"], [str.lower, str.upper]):
        monkeypatch.delenv(name(f"{scheme}_proxy"), raising=False)


def told(url: str, *allowed: str, studio: Holder | None = None) -> ImageError:
    fetcher = ImageFetcher(timeout_s=5, max_bytes=1000, connections=2, allowed_hosts=frozenset(allowed))
    with pytest.raises(ImageError) as raised:
        fetcher.fetch(Remote(url), studio)
    assert SECRET not in str(raised.value)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) <= 240
    return raised.value


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_private_host_of_a_presigned_address_is_named(serve: StartServer) -> None:
    """An S3 storage with presign, whose MinIO stands beside Label Studio."""
    minio = serve(reply(b"never asked"))
    studio = serve(redirect(f"http://localhost:{minio.port}/bucket/a.jpg{PRESIGNED}"))

    error = told(f"{studio.url}/tasks/7/presign/?fileuri=x", studio=Holder(studio.url))

    assert (error.kind, str(error)) == (
        "forbidden_address",
        f"localhost:{minio.port} is on a private address: to trust it, set ALLOWED_IMAGE_HOSTS=localhost",
    )
    assert minio.requests == []


@pytest.mark.parametrize(
    ("url", "host", "value"),
    [
        ("http://10.0.0.7/a.jpg", "10.0.0.7", "10.0.0.7"),
        ("https://10.0.0.7/a.jpg", "10.0.0.7", "10.0.0.7"),
        ("http://192.168.1.5:9000/a.jpg", "192.168.1.5:9000", "192.168.1.5"),
        ("http://[::1]:9000/a.jpg", "[::1]:9000", "[::1]"),
        ("http://me:s3cr3t@LOCALHOST/a.jpg", "localhost", "localhost"),
    ],
)
def test_a_private_host_is_named_with_what_to_write(url: str, host: str, value: str) -> None:
    error = told(url + PRESIGNED)
    assert str(error) == f"{host} is on a private address: to trust it, set ALLOWED_IMAGE_HOSTS={value}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_is_told_to_write_opens_the_way(
    serve: StartServer, clean_environment: pytest.MonkeyPatch, host: str
) -> None:
    server = serve(reply(b"the bytes of an image"))
    url = f"http://{host}:{server.port}/a.jpg"
    variable, _, value = str(told(url)).rpartition(" ")[2].partition("=")

    clean_environment.setenv(variable, value)

    hosts = load_settings().allowed_image_hosts
    fetcher = ImageFetcher(timeout_s=5, max_bytes=1000, connections=2, allowed_hosts=hosts)
    assert fetcher.fetch(Remote(url), None).content == b"the bytes of an image"


def test_the_hosts_that_are_trusted_already_stay() -> None:
    error = told("http://10.0.0.7/a.jpg", "minio", "nas")
    assert str(error).endswith("ALLOWED_IMAGE_HOSTS=10.0.0.7,minio,nas")
    assert allowing([f"host-{number}" for number in range(100)], "nas") == "ALLOWED_IMAGE_HOSTS=...,nas"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_only_a_proxy_can_look_up_is_to_be_named(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    proxy = serve(reply(b"the bytes of an image"))
    monkeypatch.setenv(f"{scheme}_proxy", proxy.url)

    error = told(f"{scheme}://images.invalid/a.jpg{PRESIGNED}", "nas")

    assert (error.kind, str(error)) == (
        "dns",
        "the name images.invalid can't be looked up here; if the proxy can, set "
        "ALLOWED_IMAGE_HOSTS=images.invalid,nas, and the proxy looks it up",
    )
    assert proxy.requests == []
    if scheme == "http":
        trusting = ImageFetcher(
            timeout_s=5, max_bytes=1000, connections=2, allowed_hosts=frozenset({"images.invalid", "nas"})
        )
        assert trusting.fetch(Remote("http://images.invalid/a.jpg"), None).content == b"the bytes of an image"


def test_without_a_proxy_for_it_a_name_is_just_unknown(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = "the name images.invalid can't be looked up here"
    assert str(told("http://images.invalid/a.jpg")) == unknown
    monkeypatch.setenv("http_proxy", serve(reply(b"")).url)
    monkeypatch.setenv("no_proxy", ".invalid")
    assert str(told("http://images.invalid/a.jpg")) == unknown
    monkeypatch.delenv("no_proxy")
    studio = Holder("http://images.invalid")
    assert str(told("http://images.invalid/a.jpg", studio=studio)) == unknown, "nor is it asked for Label Studio's own"


def test_a_refused_connection_names_the_host() -> None:
    port = closed_port()
    error = told(f"http://127.0.0.1:{port}/a.jpg{PRESIGNED}", "127.0.0.1")
    assert str(error) == f"127.0.0.1:{port} refuses the connection; in a container, that is the container itself"


def test_the_host_at_the_end_of_redirects_is_the_one_that_is_named(serve: StartServer) -> None:
    port = closed_port()
    server = serve(redirect(f"http://127.0.0.1:{port}/b.jpg{PRESIGNED}"))
    assert str(told(f"{server.url}/a.jpg", "127.0.0.1")).startswith(f"127.0.0.1:{port} refuses the connection")
    server.answer = redirect(f"http://127.0.0.1:{(last := serve(reply(b'', 403))).port}/b.jpg{PRESIGNED}")
    assert str(told(f"{server.url}/a.jpg", "127.0.0.1")) == f"127.0.0.1:{last.port} refuses access (403)"


@pytest.mark.parametrize(("status", "words"), [(404, "has no such image (404)"), (500, "answers 500")])
def test_an_answer_names_the_host(serve: StartServer, status: int, words: str) -> None:
    server = serve(reply(b"", status))
    assert str(told(f"{server.url}/a.jpg{PRESIGNED}", "127.0.0.1")) == f"127.0.0.1:{server.port} {words}"


def test_a_login_of_a_proxy_before_label_studio_is_no_refused_token(serve: StartServer) -> None:
    studio = serve(reply(b"<html>", 401, WWW_Authenticate='Basic realm="Members"'))
    error = told(f"{studio.url}/data/upload/1/a.jpg", studio=Holder(studio.url))
    assert (error.kind, str(error)) == (
        "unauthorized",
        f"a proxy in front of Label Studio asks for a login (401 of 127.0.0.1:{studio.port})",
    )
