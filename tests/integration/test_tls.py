"""What is wrong with a server's certificate, in words: against real servers with real certificates."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from urllib3.util.ssl_match_hostname import CertificateError

from tests.harness.certificates import Certificates
from tests.harness.http_server import Answer, StartServer, reply
from yolo_backend.connecting.remote_backend import BackendError, RemoteBackend
from yolo_backend.doctor.examination import examine
from yolo_backend.doctor.findings import LinkState
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError
from yolo_backend.images.fetch import ImageFetcher
from yolo_backend.images.sources import Remote
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.settings import load_settings
from yolo_backend.tls import explain_tls

pytestmark = pytest.mark.usefixtures("clean_environment")

IMAGE = b"the bytes of an image"
ANSWER: Answer = reply(b'{"status": "UP", "release": "1.23.2", "email": "me@example.com"}')
TOKEN = "0123456789abcdef" * 2 + "01234567"


def studio_says(url: str) -> str:
    with pytest.raises(StudioError) as raised:
        Studio(url, TOKEN).check()
    assert len(str(raised.value)) <= 240
    assert str(raised.value).isascii()
    return str(raised.value)


def fetcher() -> ImageFetcher:
    return ImageFetcher(timeout_s=10, max_bytes=1000, connections=2, allowed_hosts=frozenset({"127.0.0.1"}))


def image_says(url: str) -> str:
    with pytest.raises(ImageError) as raised:
        fetcher().fetch(Remote(f"{url}/a.jpg?signature=s3cr3t"), None)
    assert raised.value.kind == "tls"
    assert "s3cr3t" not in str(raised.value)
    return str(raised.value)


# The certificate, whether its authority is known, and what is told of it.
CASES = [
    ("self-signed", False, "is self-signed: set REQUESTS_CA_BUNDLE to a PEM file with it"),
    (
        "good",
        False,
        "is from an authority that isn't known here: set REQUESTS_CA_BUNDLE to a PEM file with it",
    ),
    ("expired", True, "has expired: renew it there"),
    ("future", True, "isn't valid yet: compare the clocks of both machines"),
    ("elsewhere", True, "is for another name: studio.example, *.lab.example: use that name in {}"),
    ("nameless", True, "names no host (subjectAltName): get one that names it"),
]


@pytest.mark.parametrize(("name", "is_known", "told"), CASES, ids=[case[0] for case in CASES])
def test_a_certificate_that_is_refused_is_told_with_what_to_do(
    serve: StartServer,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    is_known: bool,
    told: str,
) -> None:
    if is_known:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    server = serve(ANSWER, tls=certificates.context(name))

    ours, theirs = told.format("LABEL_STUDIO_URL"), told.format("the address")
    assert studio_says(server.url) == f"The certificate of Label Studio at {server.url} {ours}"
    assert image_says(server.url) == f"the certificate of 127.0.0.1:{server.port} {theirs}"
    assert server.requests == [], "and neither token nor signature were sent"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(("name", "bundle"), [("good", "ca"), ("self-signed", "self-signed")])
def test_the_file_that_is_named_makes_both_trust_it(
    serve: StartServer,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    name: str,
    bundle: str,
) -> None:
    monkeypatch.setenv(variable, str(certificates.pem(bundle)))
    server = serve(ANSWER, tls=certificates.context(name))

    Studio(server.url, TOKEN).check()
    server.answer = reply(IMAGE)
    assert fetcher().fetch(Remote(f"{server.url}/a.jpg"), None).content == IMAGE
    assert len(server.requests) == 2


def test_a_file_that_lacks_the_authority_is_named(
    serve: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the place of all others: whoever puts one authority into it loses the public ones."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(certificates.pem("self-signed")))  # which counts only without the other
    server = serve(ANSWER, tls=certificates.context("self-signed"))

    for told in (studio_says(server.url), image_says(server.url)):
        assert told.endswith("is self-signed: add it to the PEM file that REQUESTS_CA_BUNDLE names")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "can't be read"),
        (b"", "is no PEM file of certificates"),
        (b"\x30\x82\x03\x00 a certificate in DER", "is no PEM file of certificates"),
        (b"-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n", "is no PEM file of certificates"),
    ],
    ids=["absent", "empty", "DER", "broken"],
)
def test_a_file_of_authorities_that_cannot_be_used_is_told(
    serve: StartServer,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: bytes | None,
    told: str,
) -> None:
    bundle = tmp_path / "ca.crt"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.chdir("/")
    server = serve(ANSWER, tls=certificates.context("good"))

    assert studio_says(server.url).startswith(f"The file that REQUESTS_CA_BUNDLE names {told} (")
    assert image_says(server.url).startswith(f"the file that REQUESTS_CA_BUNDLE names {told} (")


@pytest.mark.usefixtures("certificates")
def test_https_asked_where_plain_http_is_spoken_is_told(serve: StartServer) -> None:
    server = serve(ANSWER)
    url = server.url.replace("http:", "https:")

    ours = f"Label Studio at {url} speaks plain http, and not https: write http:// in LABEL_STUDIO_URL"
    assert studio_says(url) == ours
    assert image_says(url) == f"127.0.0.1:{server.port} speaks plain http, and not https: write http:// in the address"


def test_plain_http_asked_where_https_is_spoken_is_told(serve: StartServer, certificates: Certificates) -> None:
    server = serve(ANSWER, tls=certificates.context("good"))
    url = server.url.replace("https:", "http:")

    told = studio_says(url)
    assert told.startswith(f"Label Studio doesn't answer at {url} (")
    assert told.endswith("or write https:// where it wants that")


@pytest.mark.usefixtures("certificates")
def test_a_server_that_hangs_up_at_the_greeting_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        server.settimeout(5)

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(1)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        told = studio_says(url)
    assert told.startswith((f"TLS with Label Studio at {url} fails", f"Label Studio doesn't answer at {url} ("))


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (ssl.SSLError(1, "[SSL: TLSV1_ALERT_INTERNAL_ERROR] tlsv1 alert internal error"), False),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), False),
        (CertificateError("hostname 'studio.example' doesn't match 'other.example'"), True),
    ],
)
def test_what_breaks_off_may_pass_and_a_certificate_lasts(error: Exception, lasts: bool) -> None:
    trouble = explain_tls(error, "studio.example")
    assert trouble is not None
    assert trouble.lasts is lasts


def test_a_guarded_host_is_held_to_the_same_authorities(
    serve: StartServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public server's address, which leads here, and the guard that looks at addresses."""
    server = serve(reply(IMAGE), tls=certificates.context("good"))
    guarded = ImageFetcher(timeout_s=10, max_bytes=1000, connections=2)
    monkeypatch.setattr("requests_hardened.ip_filter_adapter.filter_host", lambda host, port, **_: "127.0.0.1")
    url = f"https://localhost:{server.port}/a.jpg"

    with pytest.raises(ImageError, match=r"^the certificate of localhost:\d+ is from an authority that isn't known"):
        guarded.fetch(Remote(url), None)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    other = ImageFetcher(timeout_s=10, max_bytes=1000, connections=2)
    assert other.fetch(Remote(url), None).content == IMAGE


def test_the_advice_names_the_setting() -> None:
    assert "REQUESTS_CA_BUNDLE" in FailureKind.TLS.advice
    assert "PEM" in FailureKind.TLS.advice


def test_check_tells_it_with_the_setting(serve: StartServer, certificates: Certificates) -> None:
    server = serve(ANSWER, tls=certificates.context("good"))
    key = "0123456789abcdef" * 2 + "01234567"
    settings = load_settings(label_studio_url=server.url, label_studio_api_key=key)

    [found, *_] = [each for each in examine(settings, Studio(server.url, key)) if each.check == "Label Studio"]

    assert (found.state, found.detail, found.fix) == (
        LinkState.WRONG,
        f"The certificate of Label Studio at {server.url} is from an authority that isn't known here",
        "Set REQUESTS_CA_BUNDLE to a PEM file with it.",
    )


def test_the_backends_certificate_is_told_with_the_setting(serve: StartServer, certificates: Certificates) -> None:
    server = serve(reply(b"{}"), tls=certificates.context("self-signed"))

    with pytest.raises(BackendError) as caught:
        RemoteBackend(server.url).index()

    assert str(caught.value) == f"the certificate of {server.url} is self-signed"
    assert caught.value.fix == "Set REQUESTS_CA_BUNDLE to a PEM file with it."
