"""Fetching: from real servers, within limits, and the token for Label Studio alone."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.harness.http_server import (
    ETAG,
    LONG_AGO,
    RecordingServer,
    StartServer,
    conditional,
    conditions_seen,
    redirect,
    reply,
)
from yolo_backend.images.errors import ImageError
from yolo_backend.images.fetch import Fetched, ImageFetcher
from yolo_backend.images.sources import Inline, LocalFile, Remote, resolve_source
from yolo_backend.images.versions import FileStamp, Validators

MAX_BYTES = 100_000
TOKEN = "Token t0p-s3cr3t"
IMAGE = b"the bytes of an image"


@dataclass
class Holder:
    """Label Studio as the fetcher needs it."""

    url: str
    tokens: list[str] = field(default_factory=lambda: [TOKEN])

    def authorization(self, *, renew: bool = False) -> str | None:
        if renew:
            self.tokens.pop(0)
        return self.tokens[0] if self.tokens else None

    def must_ask(self) -> bool:
        return False


@pytest.fixture
def fetcher() -> ImageFetcher:
    return make_fetcher(10)


def make_fetcher(timeout_s: float) -> ImageFetcher:
    return ImageFetcher(
        timeout_s=timeout_s, max_bytes=MAX_BYTES, connections=4, allowed_hosts=frozenset({"127.0.0.1", "localhost"})
    )


def failure(fetcher: ImageFetcher, source: str | Inline | LocalFile, studio: Holder | None = None) -> ImageError:
    with pytest.raises(ImageError) as raised:
        fetcher.fetch(Remote(source) if isinstance(source, str) else source, studio)
    assert str(raised.value).isprintable()
    assert "s3cr3t" not in str(raised.value)
    return raised.value


def tokens_seen(server: RecordingServer) -> list[str | None]:
    return [request.headers.get("authorization") for request in server.requests]


# Connections that are kept


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_connection_that_is_closed_without_a_word_costs_no_image(serve: StartServer, at_once: int) -> None:
    """As uwsgi does: it answers once over each, and a request that comes then is read by nobody."""
    answered: set[BaseHTTPRequestHandler] = set()  # one for each connection; another one may have the same port later

    def answer_once(handler: BaseHTTPRequestHandler) -> None:
        if handler in answered:
            handler.close_connection = True
            return
        reply(IMAGE)(handler)
        answered.add(handler)

    fetcher, server = make_fetcher(10), serve(answer_once)
    with ThreadPoolExecutor(at_once) as pool:
        fetched = list(pool.map(lambda _: fetcher.fetch(Remote(server.url), None).content, range(20)))
    assert fetched == [IMAGE] * 20
    assert len(answered) == 20


def test_a_connection_that_is_closed_before_its_first_answer_is_told(fetcher: ImageFetcher, serve: StartServer) -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    server = serve(hang_up)
    assert failure(fetcher, server.url).kind == "unreachable"
    assert len(server.requests) == 1


# Bytes that are here already


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", "empty"), (b"x" * (MAX_BYTES + 1), "too_large"), (b"x" * 5 * MAX_BYTES, "too_large")]
)
def test_the_limits_hold_for_bytes_that_are_here(
    fetcher: ImageFetcher, serve: StartServer, tmp_path: Path, content: bytes, kind: str
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    assert failure(fetcher, Inline(content)).kind == kind
    assert failure(fetcher, LocalFile(file.parent, file.name)).kind == kind
    assert failure(fetcher, serve(reply(content)).url).kind == kind


@pytest.mark.parametrize("content", [b"x", b"x" * MAX_BYTES])
def test_up_to_the_limit_the_bytes_come(
    fetcher: ImageFetcher, serve: StartServer, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    assert fetcher.fetch(Inline(content), None).content == content
    assert fetcher.fetch(LocalFile(file.parent, file.name), None).content == content
    assert fetcher.fetch(Remote(serve(reply(content)).url), None).content == content


def test_a_file_that_cannot_be_read(fetcher: ImageFetcher, tmp_path: Path) -> None:
    assert failure(fetcher, LocalFile(tmp_path, "missing.jpg")).kind == "unreadable"
    assert failure(fetcher, LocalFile(tmp_path.parent, tmp_path.name)).kind == "unreadable"


def test_a_file_whose_name_the_locale_cannot_write_is_told(
    fetcher: ImageFetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def open_as_in_ascii(path: str | Path, *args: Any, **options: Any) -> int:
        os.fspath(path).encode("ascii")  # as os.open does with the locale C and PYTHONUTF8=0
        return real_open(path, *args, **options)

    monkeypatch.setattr(os, "open", open_as_in_ascii)
    monkeypatch.setattr(os, "supports_dir_fd", os.supports_dir_fd | {open_as_in_ascii})
    error = failure(fetcher, LocalFile(tmp_path, "größe.jpg"))
    assert (error.kind, str(error)) == (
        "unreadable",
        "the file can't be read: its name has letters that the locale's encoding lacks: let it be UTF-8, by "
        "LC_ALL=C.UTF-8",
    )


# The token


def test_the_token_goes_to_label_studio(fetcher: ImageFetcher, serve: StartServer) -> None:
    studio = serve(reply(IMAGE))
    assert fetcher.fetch(Remote(studio.url + "/data/upload/1/a.jpg"), Holder(studio.url + "/prefix")).content == IMAGE
    assert tokens_seen(studio) == [TOKEN]


@pytest.mark.parametrize("studio_url", [None, "http://127.0.0.1:{other}", "https://127.0.0.1:{own}"])
def test_the_token_does_not_go_elsewhere(fetcher: ImageFetcher, serve: StartServer, studio_url: str | None) -> None:
    server, other = serve(reply(IMAGE)), serve(reply(IMAGE))
    holder = Holder(studio_url.format(own=server.port, other=other.port)) if studio_url else None
    assert fetcher.fetch(Remote(server.url + "/a.jpg"), holder).content == IMAGE
    assert tokens_seen(server) == [None]
    assert other.requests == []


def test_another_name_of_the_same_machine_gets_no_token(fetcher: ImageFetcher, serve: StartServer) -> None:
    studio = serve(reply(IMAGE))
    assert fetcher.fetch(Remote(f"http://localhost:{studio.port}/a.jpg"), Holder(studio.url)).content == IMAGE
    assert tokens_seen(studio) == [None]


# What the standard library's URL parser reads as one host and urllib3 as another.
DISGUISES = [
    "http://127.0.0.1:{other}\\@127.0.0.1:{studio}/a.jpg",
    "http://127.0.0.1:{other}#@127.0.0.1:{studio}/a.jpg",
    "http://127.0.0.1:{other}?@127.0.0.1:{studio}/a.jpg",
    "http://127.0.0.1:{other}/@127.0.0.1:{studio}/a.jpg",
    "http://127.0.0.1:{studio}@127.0.0.1:{other}/a.jpg",
    "http://127.0.0.1:{studio}\\@127.0.0.1:{other}/a.jpg",
    "http://127.0.0.1:{other}\t@127.0.0.1:{studio}/a.jpg",
    "http://127.0.0.1:{other}%2f@127.0.0.1:{studio}/a.jpg",
    "http://127.0.0.1:{other}/\\..\\@127.0.0.1:{studio}/a.jpg",
]


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("by_redirect", [False, True])
def test_a_disguised_address_does_not_get_the_token(
    fetcher: ImageFetcher, serve: StartServer, disguise: str, by_redirect: bool
) -> None:
    studio, other = serve(reply(IMAGE)), serve(reply(IMAGE))
    url = disguise.format(studio=studio.port, other=other.port)
    if by_redirect:
        studio.answer = redirect(url)
        url = studio.url + "/tasks/1/presign/"
    with suppress(ImageError):  # refusing the address is as good
        fetcher.fetch(Remote(url), Holder(studio.url))
    assert set(tokens_seen(other)) <= {None}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_does_not_follow_a_redirect_to_another_port(
    fetcher: ImageFetcher, serve: StartServer, status: int
) -> None:
    bucket = serve(reply(IMAGE))
    studio = serve(redirect(bucket.url + "/a.jpg?signature=x", status))
    assert fetcher.fetch(Remote(studio.url + "/tasks/7/presign/"), Holder(studio.url)).content == IMAGE
    assert tokens_seen(studio) == [TOKEN]
    assert tokens_seen(bucket) == [None]
    assert bucket.requests[0].path == "/a.jpg?signature=x"


def test_the_token_does_not_follow_a_redirect_to_another_host_name(fetcher: ImageFetcher, serve: StartServer) -> None:
    studio = serve(reply(IMAGE))
    studio.answer = lambda handler: (
        redirect(f"http://localhost:{studio.port}/b")(handler) if handler.path == "/a" else reply(IMAGE)(handler)
    )
    assert fetcher.fetch(Remote(studio.url + "/a"), Holder(studio.url)).content == IMAGE
    assert tokens_seen(studio) == [TOKEN, None]


def test_at_every_step_the_origin_is_asked_anew(fetcher: ImageFetcher, serve: StartServer) -> None:
    studio, other = serve(reply(IMAGE)), serve(reply(IMAGE))
    other.answer = redirect(studio.url + "/last")
    studio.answer = lambda handler: (redirect(other.url) if handler.path == "/first" else reply(IMAGE))(handler)
    assert fetcher.fetch(Remote(studio.url + "/first"), Holder(studio.url)).content == IMAGE
    assert tokens_seen(studio) == [TOKEN, TOKEN]
    assert tokens_seen(other) == [None]


def test_a_refused_token_is_renewed_once(fetcher: ImageFetcher, serve: StartServer) -> None:
    studio = serve(
        lambda handler: (reply(IMAGE) if handler.headers["Authorization"] == "Bearer new" else reply(b"no", 401))(
            handler
        )
    )
    assert fetcher.fetch(Remote(studio.url), Holder(studio.url, ["Bearer old", "Bearer new"])).content == IMAGE
    assert tokens_seen(studio) == ["Bearer old", "Bearer new"]


def test_a_token_that_is_refused_twice_is_not_tried_again(fetcher: ImageFetcher, serve: StartServer) -> None:
    studio = serve(reply(b"no", 401))
    error = failure(fetcher, studio.url, Holder(studio.url, ["Bearer 1", "Bearer 2", "Bearer 3"]))
    assert error.kind == "unauthorized"
    assert tokens_seen(studio) == ["Bearer 1", "Bearer 2"]


def test_a_token_that_cannot_be_renewed_is_sent_once(fetcher: ImageFetcher, serve: StartServer) -> None:
    studio = serve(reply(b"no", 401))
    assert failure(fetcher, studio.url, Holder(studio.url, [TOKEN])).kind == "unauthorized"
    assert tokens_seen(studio) == [TOKEN]


def test_elsewhere_a_refusal_renews_nothing(fetcher: ImageFetcher, serve: StartServer) -> None:
    other = serve(reply(b"no", 401))
    holder = Holder("http://studio.invalid")
    assert failure(fetcher, other.url, holder).kind == "unauthorized"
    assert tokens_seen(other) == [None]
    assert holder.tokens == [TOKEN]


@pytest.mark.parametrize("target", ["/user/login/?next=/data/upload/1/a.jpg", "/prefix/user/login"])
def test_the_login_page_is_not_taken_for_an_image(fetcher: ImageFetcher, serve: StartServer, target: str) -> None:
    studio = serve(redirect(target))
    error = failure(fetcher, studio.url, Holder(studio.url, []))
    assert error.kind == "unauthorized"
    assert "LABEL_STUDIO_API_KEY" in str(error)
    assert len(studio.requests) == 1


def test_netrc_is_not_sent(
    fetcher: ImageFetcher, serve: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1\nlogin me\npassword s3cr3t\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    other = serve(reply(IMAGE))
    studio = serve(redirect(other.url))
    assert fetcher.fetch(Remote(studio.url), Holder(studio.url)).content == IMAGE
    assert fetcher.fetch(Remote(other.url), None).content == IMAGE
    assert tokens_seen(studio) == [TOKEN]
    assert tokens_seen(other) == [None, None]


def test_cookies_are_not_sent_back(fetcher: ImageFetcher, serve: StartServer) -> None:
    studio = serve(reply(IMAGE, Set_Cookie="sessionid=someone; Path=/"))
    for _ in range(2):
        fetcher.fetch(Remote(studio.url), Holder(studio.url))
    studio.answer = lambda handler: (
        reply(b"", 302, Location="/b", Set_Cookie="sessionid=x; Path=/") if handler.path == "/a" else reply(IMAGE)
    )(handler)
    fetcher.fetch(Remote(studio.url + "/a"), Holder(studio.url))
    assert [request.headers.get("cookie") for request in studio.requests] == [None] * 4


# Private addresses


GUARDED = ImageFetcher(timeout_s=10, max_bytes=MAX_BYTES, connections=4)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "127.0.0.2",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "[fd00::1]",
        "[fe80::1]",
    ],
)
@pytest.mark.parametrize("by_redirect", [False, True])
def test_private_addresses_are_refused(serve: StartServer, host: str, by_redirect: bool) -> None:
    private = serve(reply(IMAGE))
    url = f"http://{host}:{private.port}/a.jpg"
    studio = serve(redirect(url))
    error = failure(GUARDED, studio.url if by_redirect else url, Holder(studio.url))
    assert error.kind in {"forbidden_address", "dns"}
    assert private.requests == []


def test_a_private_address_says_how_to_trust_it(serve: StartServer) -> None:
    private = serve(reply(IMAGE))
    error = failure(GUARDED, private.url)
    assert error.kind == "forbidden_address"
    assert "ALLOWED_IMAGE_HOSTS" in str(error)


def test_label_studio_itself_may_be_on_a_private_address(serve: StartServer) -> None:
    studio = serve(reply(IMAGE))
    assert GUARDED.fetch(Remote(studio.url + "/a.jpg"), Holder(studio.url)).content == IMAGE


def test_the_host_of_label_studio_is_not_trusted_at_another_port(serve: StartServer) -> None:
    studio, other = serve(reply(IMAGE)), serve(reply(IMAGE))
    assert failure(GUARDED, other.url, Holder(studio.url)).kind == "forbidden_address"
    assert other.requests == []


@pytest.mark.parametrize(("allowed", "host"), [("127.0.0.1", "127.0.0.1"), ("localhost", "LocalHost")])
def test_named_hosts_are_trusted_and_no_others(serve: StartServer, allowed: str, host: str) -> None:
    fetcher = ImageFetcher(
        timeout_s=10, max_bytes=MAX_BYTES, connections=4, allowed_hosts=frozenset({allowed, "minio"})
    )
    server = serve(reply(IMAGE))
    assert fetcher.fetch(Remote(f"http://{host}:{server.port}/a.jpg"), None).content == IMAGE
    server.answer = redirect(f"http://127.0.0.3:{server.port}/b.jpg")
    assert failure(fetcher, f"http://{host}:{server.port}/a.jpg").kind == "forbidden_address"


# Names


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "my photo.jpg", "größe.jpg", "猫 😺.jpg", "100%.jpg", "100% sure.jpg", "a#1.jpg", "a'(1)+b,c;d=e.jpg"],
)
@pytest.mark.parametrize("prefix", ["", "/label-studio"])
def test_an_uploads_name_reaches_the_server(fetcher: ImageFetcher, serve: StartServer, name: str, prefix: str) -> None:
    studio = serve(reply(IMAGE))
    source = resolve_source(f"/data/upload/1/{name}", 7, studio.url + prefix, None)
    assert fetcher.fetch(source, Holder(studio.url + prefix)).content == IMAGE
    assert unquote(studio.requests[0].path) == f"{prefix}/data/upload/1/{name}"
    assert tokens_seen(studio) == [TOKEN]


@pytest.mark.parametrize("name", ["my%20photo.jpg", "gr%C3%B6%C3%9Fe.jpg", "100%25.jpg", "a%231.jpg", "a%2Fb.jpg"])
def test_a_quoted_name_is_not_quoted_again(fetcher: ImageFetcher, serve: StartServer, name: str) -> None:
    studio = serve(reply(IMAGE))
    fetcher.fetch(resolve_source(f"/data/upload/1/{name}", 7, studio.url, None), Holder(studio.url))
    assert studio.requests[0].path == f"/data/upload/1/{name}"


# Redirects


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/b.jpg", "/b.jpg"),
        ("b.jpg", "/folder/b.jpg"),
        ("../b.jpg", "/b.jpg"),
        ("?b", "/folder/a.jpg?b"),
        ("/my photo.jpg", "/my%20photo.jpg"),
        ("/%C3%BC.jpg", "/%C3%BC.jpg"),
    ],
)
def test_redirects_may_be_relative(fetcher: ImageFetcher, serve: StartServer, target: str, path: str) -> None:
    server = serve(lambda handler: (redirect(target) if handler.path == "/folder/a.jpg" else reply(IMAGE))(handler))
    assert fetcher.fetch(Remote(server.url + "/folder/a.jpg"), None).content == IMAGE
    assert server.requests[1].path == path


def test_a_redirect_in_raw_utf8_arrives(fetcher: ImageFetcher, serve: StartServer) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/a":
            handler.wfile.write("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /größe.jpg\r\n\r\n".encode())
        else:
            reply(IMAGE)(handler)

    server = serve(answer)
    assert fetcher.fetch(Remote(server.url + "/a"), None).content == IMAGE
    assert unquote(server.requests[1].path) == "/größe.jpg"


def test_redirects_end(fetcher: ImageFetcher, serve: StartServer) -> None:
    server = serve(redirect("/again"))
    assert failure(fetcher, server.url).kind == "redirects"
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://example.invalid/a.jpg", "data:image/png;base64,AAAA", "gopher://x"]
)
def test_redirects_lead_to_the_web_only(fetcher: ImageFetcher, serve: StartServer, target: str) -> None:
    assert failure(fetcher, serve(redirect(target)).url).kind == "unsupported"


@pytest.mark.parametrize("target", ["http://[bad/", "http://127.0.0.1:99999/", "http://127.0.0.1:port/"])
def test_a_redirect_to_a_malformed_address(fetcher: ImageFetcher, serve: StartServer, target: str) -> None:
    studio = serve(redirect(target))
    assert failure(fetcher, studio.url, Holder(studio.url)).kind == "bad_address"


# What is known already


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({"ETag": ETAG}, ETAG),
        ({"Last_Modified": LONG_AGO}, LONG_AGO),
        ({"ETag": ETAG, "Last_Modified": LONG_AGO}, ETAG),
    ],
)
def test_known_bytes_do_not_come_again(
    fetcher: ImageFetcher, serve: StartServer, headers: dict[str, str], condition: str
) -> None:
    server = serve(conditional(IMAGE, **headers))
    source = Remote(server.url + "/a.jpg")
    first = fetcher.fetch(source, None, None)
    assert first.content == IMAGE
    assert fetcher.fetch(source, None, first.version) == Fetched(b"", first.version)
    server.answer = conditional(b"others", **{name: ETAG.replace("1", "2") for name in headers})
    assert fetcher.fetch(source, None, first.version).content == b"others"
    assert fetcher.fetch(source, None).content == b"others"
    assert conditions_seen(server) == [None, condition, condition, None]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"'}, {"ETag": ETAG, "Cache_Control": "no-store"}])
def test_bytes_without_a_reliable_version_come_again(
    fetcher: ImageFetcher, serve: StartServer, headers: dict[str, str]
) -> None:
    server = serve(conditional(IMAGE, **headers))
    assert fetcher.fetch(Remote(server.url), None, None) == Fetched(IMAGE, None)


def test_a_date_of_this_moment_is_no_version(fetcher: ImageFetcher, serve: StartServer) -> None:
    server = serve(conditional(IMAGE, Last_Modified=formatdate(time.time() - 10, usegmt=True)))
    assert fetcher.fetch(Remote(server.url), None, None) == Fetched(IMAGE, None)


def test_an_unasked_304_is_an_error(fetcher: ImageFetcher, serve: StartServer) -> None:
    server = serve(reply(b"", 304, ETag=ETAG))
    elsewhere = Validators("If-None-Match", ETAG, "http://elsewhere.example/a.jpg")
    for known in (None, elsewhere, FileStamp(1, 2, 3, 4, 5)):
        with pytest.raises(ImageError, match="304") as raised:
            fetcher.fetch(Remote(server.url), None, known)
        assert raised.value.kind == "http_error"
    assert conditions_seen(server) == [None] * 3


def test_a_presigned_address_is_asked_with_each_signature(fetcher: ImageFetcher, serve: StartServer) -> None:
    bucket = serve(conditional(IMAGE, ETag=ETAG))

    def presign(handler: BaseHTTPRequestHandler) -> None:
        redirect(f"{bucket.url}/a.jpg?signature={len(studio.requests)}")(handler)

    studio = serve(presign)
    source, holder = Remote(studio.url + "/tasks/7/presign/?fileuri=x"), Holder(studio.url)
    first = fetcher.fetch(source, holder, None)
    assert fetcher.fetch(source, holder, first.version) == Fetched(b"", first.version)
    assert [request.path for request in bucket.requests] == ["/a.jpg?signature=1", "/a.jpg?signature=2"]
    assert conditions_seen(bucket) == [None, ETAG]
    assert conditions_seen(studio) == [None, None]
    assert tokens_seen(studio) == [TOKEN, TOKEN]
    assert tokens_seen(bucket) == [None, None]


def test_a_redirect_that_leads_elsewhere_now_is_asked_without_condition(
    fetcher: ImageFetcher, serve: StartServer
) -> None:
    bucket, other = serve(conditional(IMAGE, ETag=ETAG)), serve(conditional(b"others", ETag=ETAG))
    studio = serve(redirect(bucket.url + "/a.jpg"))
    first = fetcher.fetch(Remote(studio.url), Holder(studio.url), None)
    for target in (other.url + "/a.jpg", bucket.url + "/b.jpg"):
        studio.answer = redirect(target)
        assert fetcher.fetch(Remote(studio.url), Holder(studio.url), first.version).content
    assert conditions_seen(other) == [None]
    assert conditions_seen(bucket) == [None, None]
    assert conditions_seen(studio) == [None] * 3


def test_the_condition_goes_along_with_a_renewed_token(fetcher: ImageFetcher, serve: StartServer) -> None:
    studio = serve(conditional(IMAGE, ETag=ETAG))
    first = fetcher.fetch(Remote(studio.url + "/a.jpg"), Holder(studio.url), None)
    studio.answer = lambda handler: (
        conditional(IMAGE, ETag=ETAG) if handler.headers["Authorization"] == "Bearer new" else reply(b"no", 401)
    )(handler)
    holder = Holder(studio.url, ["Bearer old", "Bearer new"])
    assert fetcher.fetch(Remote(studio.url + "/a.jpg"), holder, first.version).content == b""
    assert conditions_seen(studio) == [None, ETAG, ETAG]


def test_an_unchanged_answer_leaves_its_connection_for_the_next(fetcher: ImageFetcher, serve: StartServer) -> None:
    ports = []
    server = serve(conditional(IMAGE, ETag=ETAG))
    version = fetcher.fetch(Remote(server.url), None, None).version

    def answer(handler: BaseHTTPRequestHandler) -> None:
        ports.append(handler.client_address[1])
        conditional(IMAGE, ETag=ETAG)(handler)

    server.answer = answer
    for _ in range(4):
        assert fetcher.fetch(Remote(server.url), None, version).content == b""
    assert len(set(ports)) == 1


def test_a_304_with_an_endless_body_is_not_read(fetcher: ImageFetcher, serve: StartServer) -> None:
    finished = threading.Event()
    server = serve(conditional(IMAGE, ETag=ETAG))
    version = fetcher.fetch(Remote(server.url), None, None).version

    def answer(handler: BaseHTTPRequestHandler) -> None:
        endless(handler, status=304)
        finished.set()

    server.answer = answer
    assert fetcher.fetch(Remote(server.url), None, version).content == b""
    assert not finished.is_set()


def test_a_known_file_is_not_read_again(fetcher: ImageFetcher, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(IMAGE)
    os.utime(file, (time.time() - 3600, time.time() - 3600))
    source = LocalFile(tmp_path, "a.jpg")
    first = fetcher.fetch(source, None, None)
    assert first.content == IMAGE
    assert fetcher.fetch(source, None, first.version) == Fetched(b"", first.version)
    file.write_bytes(IMAGE[::-1])
    assert fetcher.fetch(source, None, first.version) == Fetched(IMAGE[::-1], None)
    assert fetcher.fetch(source, None, None) == Fetched(IMAGE[::-1], None)  # too young to be known


# Servers that don't do what they should


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "unauthorized"),
        (403, "unauthorized"),
        (404, "not_found"),
        (410, "not_found"),
        (400, "http_error"),
        (429, "http_error"),
        (500, "http_error"),
        (503, "http_error"),
        (206, "http_error"),
        (302, "http_error"),  # without a Location
    ],
)
def test_a_status_that_is_no_200(fetcher: ImageFetcher, serve: StartServer, status: int, kind: str) -> None:
    error = failure(fetcher, serve(reply(IMAGE, status)).url)
    assert error.kind == kind
    assert str(status) in str(error)


def endless(handler: BaseHTTPRequestHandler, *, status: int = 200, max_chunks: int = 3000, **headers: str) -> None:
    """Up to 190 MB in chunks; ends before where the client hangs up."""
    handler.send_response(status)
    for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    chunk = b"x" * 64_000
    for _ in range(max_chunks):
        handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def test_the_limit_holds_while_the_body_streams(fetcher: ImageFetcher, serve: StartServer) -> None:
    finished = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        endless(handler)
        finished.set()

    assert failure(fetcher, serve(answer).url).kind == "too_large"
    assert not finished.is_set()


@pytest.mark.parametrize("status", [302, 404])
def test_the_limit_holds_for_the_body_of_another_answer(fetcher: ImageFetcher, serve: StartServer, status: int) -> None:
    finished = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        endless(handler, status=status, Location="/again")
        finished.set()

    failure(fetcher, serve(answer).url)
    assert not finished.is_set()


def test_the_limit_holds_for_the_unpacked_bytes(fetcher: ImageFetcher, serve: StartServer) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < MAX_BYTES
    assert failure(fetcher, serve(reply(bomb, Content_Encoding="gzip")).url).kind == "too_large"


def test_a_packed_body_is_unpacked(fetcher: ImageFetcher, serve: StartServer) -> None:
    assert fetcher.fetch(Remote(serve(reply(gzip.compress(IMAGE), Content_Encoding="gzip")).url), None).content == IMAGE


def test_a_body_that_is_not_packed_as_it_says(fetcher: ImageFetcher, serve: StartServer) -> None:
    assert isinstance(failure(fetcher, serve(reply(IMAGE, Content_Encoding="gzip")).url), ImageError)


@pytest.mark.parametrize("length", ["22", "1000", "99999"])
def test_a_body_that_is_shorter_than_it_says(fetcher: ImageFetcher, serve: StartServer, length: str) -> None:
    assert failure(fetcher, serve(reply(IMAGE, Content_Length=length)).url).kind == "unreachable"


def test_chunks_that_break_off(fetcher: ImageFetcher, serve: StartServer) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"ff\r\nonly this")
        handler.close_connection = True

    assert failure(fetcher, serve(answer).url).kind == "unreachable"


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1", b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]
)
def test_an_answer_that_is_not_http(fetcher: ImageFetcher, serve: StartServer, raw: bytes) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(raw)
        handler.close_connection = True

    assert isinstance(failure(fetcher, serve(answer).url), ImageError)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Set when the test ends, for servers that hang."""
    event = threading.Event()
    yield event
    event.set()


def test_a_server_that_does_not_answer(serve: StartServer, released: threading.Event) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        released.wait(20)

    server = serve(answer)
    assert failure(make_fetcher(0.3), server.url).kind == "timeout"


def test_a_server_that_stops_half_way(serve: StartServer, released: threading.Event) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(IMAGE, Content_Length="1000")(handler)
        released.wait(20)

    assert failure(make_fetcher(0.3), serve(answer).url).kind == "timeout"


def test_a_body_that_drips_is_given_up(serve: StartServer) -> None:
    finished = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(b"", Content_Length="31")(handler)
        for _ in range(30):
            handler.wfile.write(b"x")
            time.sleep(0.1)
        finished.set()
        handler.wfile.write(b"x")

    assert failure(make_fetcher(0.5), serve(answer).url).kind == "timeout"
    assert not finished.is_set()


def test_headers_that_drip_are_given_up(serve: StartServer) -> None:
    finished = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(30):
            handler.wfile.write(f"X-{number}: x\r\n".encode())
            time.sleep(0.1)
        finished.set()
        handler.wfile.write(b"Content-Length: 1\r\n\r\nx")

    assert failure(make_fetcher(0.5), serve(answer).url).kind == "timeout"
    assert not finished.is_set()


@pytest.mark.long
def test_slow_redirects_share_one_time_limit(serve: StartServer) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.4)
        (redirect(handler.path + "x") if len(handler.path) < 5 else reply(IMAGE))(handler)

    server = serve(answer)
    assert failure(make_fetcher(0.6), server.url).kind == "timeout"
    assert len(server.requests) < 5


# Servers that aren't there


def test_a_host_without_an_address(fetcher: ImageFetcher) -> None:
    assert failure(fetcher, "http://no-such-host.invalid/a.jpg").kind == "dns"


def test_nobody_listens(fetcher: ImageFetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = failure(fetcher, f"http://127.0.0.1:{port}/a.jpg")
    assert error.kind == "unreachable"
    assert "refuses" in str(error)


def test_a_server_without_tls(fetcher: ImageFetcher, serve: StartServer) -> None:
    assert failure(fetcher, f"https://127.0.0.1:{serve(reply(IMAGE)).port}/a.jpg").kind == "tls"


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.jpg",
        "http://[bad/a.jpg",
        "http://127.0.0.1:99999/a.jpg",
        "http://127.0.0.1:port/a.jpg",
        "http://*.invalid/",
        "http://" + "a" * 70 + ".invalid/",
        "http://.invalid/",
        "http://a..invalid/",
        "http://\ud800.invalid/",
    ],
)
@pytest.mark.parametrize("studio", [None, Holder("http://127.0.0.1:8080")])
def test_addresses_that_cannot_be_asked(fetcher: ImageFetcher, url: str, studio: Holder | None) -> None:
    assert failure(fetcher, url, studio).kind in {"bad_address", "dns"}


# Side by side


def test_many_threads_get_their_own_bytes(fetcher: ImageFetcher, serve: StartServer) -> None:
    server = serve(lambda handler: reply(handler.path.encode() * 500)(handler))
    paths = [f"/{number}" for number in range(60)]
    with ThreadPoolExecutor(12) as threads:
        contents = list(threads.map(lambda path: fetcher.fetch(Remote(server.url + path), None).content, paths))
    assert contents == [path.encode() * 500 for path in paths]
