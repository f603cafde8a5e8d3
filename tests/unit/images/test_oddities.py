"""Values that are no address of an image, and addresses that often fail: each with what it is and what to do."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.harness.http_server import StartServer, reply
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError
from yolo_backend.images.fetch import ImageFetcher
from yolo_backend.images.sources import Remote, resolve_source

STUDIO = "http://studio:8080"
SERVE_IT = "upload the file, or serve its folder as a Local Files storage"
BARE = f"the task's value is neither an address nor a path of Label Studio: {SERVE_IT}"
WINDOWS = f"it is a path of a Windows disk, which no web page can open: {SERVE_IT}"
JPEG = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wCEAAkGBwgHBgkIBwgKCgkLDRYPDQwMDRsU"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
GIVE_TYPE = "the task's value should be an image address, not "


class Studio:
    """Label Studio as the fetcher needs it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def authorization(self, *, renew: bool = False) -> str | None:
        return "Token mine"

    def must_ask(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        # A path of somebody's disk
        ("C:\\data\\media\\a.jpg", WINDOWS),
        ("c:/photos/IMG_0001.jpg", WINDOWS),
        ("D:a.jpg", WINDOWS),
        (
            "\\\\server\\share\\a.jpg",
            f"it is a path of a Windows network share, which no web page can open: {SERVE_IT}",
        ),
        ("file:///srv/a.jpg", f"it is a file: address, which no web page can open: {SERVE_IT}"),
        ("FILE:/srv/a.jpg", f"it is a file: address, which no web page can open: {SERVE_IT}"),
        ("~/a.jpg", f"it is a path of a home folder, which no web page can open: {SERVE_IT}"),
        # The name of a file alone
        ("plain.jpg", BARE),
        ("./a.jpg", BARE),
        ("../a.jpg", BARE),
        ("folder/photo.jpg", BARE),
        ("photos/2024-05-01 10:30.jpg", BARE),
        ("12345", BARE),
        ("$image", BARE),
        ("{image}", BARE),
        # An address that lacks something
        ("data/upload/1/a.jpg", "it lacks its first slash: write /data/upload/…"),
        ("data/local-files/?d=a.jpg", "it lacks its first slash: write /data/local-files/…"),
        ("upload/1/a.jpg", "it lacks its beginning: write /data/upload/…"),
        *[
            (value, "it lacks its beginning: write https:// (or http://) before the host, or upload the file")
            for value in (
                "example.com/a.jpg",
                "www.example.com/a.jpg",
                "localhost:8080/data/upload/1/a.jpg",
                "10.0.0.7:9000/bucket/a.jpg",
                "someone:pw@example.com/a.jpg",
            )
        ],
        # Buckets by another name, and other schemes
        *[
            (
                f"{other}://bucket/a.jpg",
                f"Label Studio doesn't know {other}: addresses: write {name}://, and add the bucket as a storage",
            )
            for other, name in (("azure", "azure-blob"), ("abfss", "azure-blob"), ("gcs", "gs"), ("s3a", "s3"))
        ],
        *[
            (
                f"{scheme}://host/a.jpg",
                f"{scheme}: addresses are not served, and no web page shows them: {SERVE_IT}",
            )
            for scheme in ("hdfs", "ftp", "sftp", "htps")
        ],
        ("dbfs:/mnt/a.jpg", f"dbfs: addresses are not served, and no web page shows them: {SERVE_IT}"),
        (
            "blob:http://localhost:8080/1-2",
            "it is a blob: address, which lives only in the browser that made it: upload the file",
        ),
        # Something around the address, or instead of it
        (
            '<img src="https://example.com/a.jpg">',
            "it is HTML, not an address: give the address alone, as it stands in src",
        ),
        (
            "[a](https://example.com/a.jpg)",
            "it is a Markdown link, not an address: give the address alone, as it stands in the parentheses",
        ),
        (
            "![a](/data/upload/1/a.jpg)",
            "it is a Markdown link, not an address: give the address alone, as it stands in the parentheses",
        ),
        ('"/data/upload/1/a.jpg"', "it stands in quotes: leave them out"),
        ("'https://example.com/a.jpg'", "it stands in quotes: leave them out"),
        ("“a.jpg”", "it stands in quotes: leave them out"),
        *[
            (value, "it is an object or a list, written as a text: import it without the quotes around it")
            for value in ('{"url": "/data/upload/1/a.jpg"}', '["/data/upload/1/a.jpg", "/data/upload/1/b.jpg"]')
        ],
        ("nan", "it is the word nan, which stands for an empty field: give the task an image, or delete it"),
        ("None", "it is the word None, which stands for an empty field: give the task an image, or delete it"),
        *[
            (
                value,
                "it is an image in base64 without its beginning: write data:image/jpeg;base64, before it",
            )
            for value in (JPEG, JPEG + "A" * 20_000, PNG)
        ],
    ],
)
@pytest.mark.parametrize("studio_url", [STUDIO, None])
def test_what_no_page_can_show_is_told_without_asking_anybody(
    value: str, sentence: str, studio_url: str | None
) -> None:
    with pytest.raises(ImageError) as raised:
        resolve_source(f" {value}\n", 7, studio_url, None)
    assert (raised.value.kind, str(raised.value)) == ("unsupported", sentence)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("http:/one-slash/a.jpg", "it lacks a slash: two stand after http:"),
        ("https:example.com/a.jpg", "it lacks a slash: two stand after https:"),
        ("http://", "it names no host after its first http://: correct the address"),
        ("http:///a.jpg", "it names no host after its first http://: correct the address"),
        ("https://https://example.com/a.jpg", "it names no host after its first https://: correct the address"),
        ("s3:/bucket/a.jpg", "it lacks a slash: two stand after s3:"),
        *[
            (value, f"it names no file in a bucket: it should look like {scheme}://bucket/folder/image.jpg")
            for scheme, value in (
                ("s3", "s3://bucket"),
                ("s3", "s3://bucket/"),
                ("s3", "s3:///a.jpg"),
                ("gs", "gs://"),
                ("azure-blob", "azure-blob://container"),
            )
        ],
    ],
)
def test_an_address_that_lacks_something_is_told_without_asking_anybody(value: str, sentence: str) -> None:
    with pytest.raises(ImageError) as raised:
        resolve_source(value, 7, STUDIO, None)
    assert (raised.value.kind, str(raised.value)) == ("bad_address", sentence)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            "https://drive.google.com/file/d/1AbC/view?usp=sharing",
            "it is Google Drive's web page about a file, not the file: download the image and upload it",
        ),
        (
            "https://www.dropbox.com/s/1abc/a.jpg?dl=0",
            "it is Dropbox's web page about a file, not the file: let the address end in raw=1 instead of dl=0",
        ),
        (
            "https://github.com/someone/photos/blob/main/a.jpg",
            "it is GitHub's web page about a file, not the file: write /raw/ instead of /blob/",
        ),
    ],
)
def test_a_web_page_around_an_image_is_told(value: str, sentence: str) -> None:
    with pytest.raises(ImageError) as raised:
        resolve_source(value, 7, STUDIO, None)
    assert (raised.value.kind, str(raised.value)) == ("not_an_image", sentence)


@pytest.mark.parametrize(
    "value",
    [
        "https://drive.google.com/uc?export=view&id=1AbC",
        "https://www.dropbox.com/s/1abc/a.jpg?raw=1",
        "https://dl.dropboxusercontent.com/s/1abc/a.jpg",
        "https://github.com/someone/photos/raw/main/a.jpg",
        "https://github.com/someone/photos/blob/main/a.jpg?raw=true",
        "https://raw.githubusercontent.com/someone/photos/main/a.jpg",
        "https://example.com/C:/a.jpg",
        "https://example.com/w_100,h_50/a.jpg",
        "https://proxy.example/https://example.com/a.jpg",
    ],
)
def test_an_address_of_an_image_stays_as_it_is(value: str) -> None:
    assert resolve_source(value, 7, STUDIO, None) == Remote(value)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "nothing"),
        ("", "an empty text"),
        (5, "a number"),
        (float("nan"), "a number"),
        (True, "true or false"),
        ([["a.jpg"]], "a list: for a list of addresses, use the Image's valueList"),
        ({"url": "/a.jpg"}, 'an object: let the Image name the field in it, as in value="$image.url"'),
        ({"size": 3, "src": "/a.jpg"}, 'an object: let the Image name the field in it, as in value="$image.src"'),
        ({}, "an object"),
        ({"a b": "/a.jpg", "\n": "x"}, "an object"),
    ],
)
def test_what_is_no_text_is_told(value: Any, what: str) -> None:
    with pytest.raises(ImageError) as raised:
        resolve_source(value, 7, STUDIO, None)
    assert (raised.value.kind, str(raised.value)) == ("wrong_type", GIVE_TYPE + what)


# Addresses that are fetched as the page does, and what is told where there is nothing

NO_FILE = (
    "Label Studio serves no such file: check that it is below LOCAL_FILES_DOCUMENT_ROOT, in a folder that is a Local "
    "Files storage of a project, and that LOCAL_FILES_SERVING_ENABLED=true"
)
A_WINDOWS_PATH = "it has a Windows path after ?d=: write the file's path below LOCAL_FILES_DOCUMENT_ROOT, with / only"
NO_UPLOAD = "Label Studio has no such upload: it was deleted, or is another Label Studio's"
NOTHING = f"Label Studio has nothing at this path; if it is one of a disk, no web page can open it: {SERVE_IT}"
SEVERAL = "it holds several addresses: import them as a list, and let the Image name it as valueList"


def failure(
    serve: StartServer, value: str, status: int, *, outside_url: str | None = None, is_configured: bool = True
) -> ImageError:
    """What is told of a task's value, where every server answers this status; `{host}` is another than Label Studio."""
    server, other = serve(reply(b"", status)), serve(reply(b"", status))
    studio = Studio(server.url)
    source = resolve_source(
        value.format(host=other.url), 7, studio.url if is_configured else None, None, lambda: outside_url
    )
    fetcher = ImageFetcher(timeout_s=5, max_bytes=1000, connections=1, allowed_hosts=frozenset({"127.0.0.1"}))
    with pytest.raises(ImageError) as raised:
        fetcher.fetch(source, studio)
    return raised.value


@pytest.mark.parametrize(
    ("value", "status", "kind", "sentence"),
    [
        ("/data/local-files/?d=sub%5Cplain.jpg", 404, "not_found", A_WINDOWS_PATH),
        ("/data/local-files/?d=c:/photos/IMG_0001.jpg", 404, "not_found", A_WINDOWS_PATH),
        ("/data/local-files/?d=C%3A%5Cphotos%5Ca.jpg", 404, "not_found", A_WINDOWS_PATH),
        ("/data/local-files/?d=a.jpg", 404, "not_found", NO_FILE),
        ("/data/local-files/?d=a.jpg", 403, "not_found", NO_FILE),
        ("/data/local-files/?d=/srv/files/a.jpg&x=1", 404, "not_found", NO_FILE),
        (
            "/data/local-files/?d=..%2Fa.jpg",
            500,
            "not_found",
            "Label Studio serves nothing above LOCAL_FILES_DOCUMENT_ROOT: correct the path after ?d=",
        ),
        (
            "/data/local-files/?d=a%2520b.jpg",
            404,
            "not_found",
            "Label Studio serves no such file: its path after ?d= is percent-encoded twice (%25)",
        ),
        (
            "/data/local-files/",
            403,
            "not_found",
            "the address of a local file names none: write its path after /data/local-files/?d=",
        ),
        ("/data/upload/1/a.jpg", 500, "not_found", NO_UPLOAD),
        ("/data/upload/1/a.jpg", 404, "not_found", NO_UPLOAD),
        ("/storage-data/uploaded/?filepath=upload/1/a.jpg", 404, "not_found", NO_UPLOAD),
        (
            "/data/upload/1/my%2520photo.jpg",
            500,
            "not_found",
            "Label Studio has no such upload: the address is percent-encoded twice (%25)",
        ),
        ("/srv/datasets/test/1.jpg", 404, "unsupported", NOTHING),
        ("/home/someone/a.jpg", 404, "unsupported", NOTHING),
        (
            "/label-studio/data/upload/1/a.jpg",
            404,
            "other_label_studio",
            "if Label Studio's address in a browser ends in /label-studio, set LABEL_STUDIO_HOST to that address",
        ),
        ("/data/upload/1/a.jpg,/data/upload/1/b.jpg", 500, "unsupported", SEVERAL),
        ("/data/local-files/?d=a.jpg;/data/local-files/?d=b.jpg", 404, "unsupported", SEVERAL),
        ("{host}/a.jpg|{host}/b.jpg", 404, "unsupported", SEVERAL),
        ("s3://bucket/a.jpg, s3://bucket/b.jpg", 404, "unsupported", SEVERAL),
        (
            "s3://bucket/what?.jpg",
            404,
            "not_found",
            "Label Studio reads a bucket's address up to its ? only: rename the file",
        ),
    ],
)
def test_where_there_is_nothing_it_is_told_why(
    serve: StartServer, value: str, status: int, kind: str, sentence: str
) -> None:
    error = failure(serve, value, status)
    answered = {403: "HOST refuses access (403)", 404: "HOST has no such image (404)"}
    assert error.kind == kind
    assert without_host(error) == f"{sentence} ({answered.get(status, f'HOST answers {status}')})"


def without_host(error: ImageError) -> str:
    return re.sub(r"\b127\.0\.0\.1:\d+", "HOST", str(error))


@pytest.mark.parametrize(
    "value", ["/data/upload/1/a.jpg", "/data/local-files/?d=c:/a.jpg", "/srv/a.jpg", "/a,/data/upload/"]
)
@pytest.mark.parametrize("status", [401, 429, 503])
def test_what_isnt_the_addresss_fault_is_not_laid_to_it(serve: StartServer, value: str, status: int) -> None:
    error = failure(serve, value, status)
    assert error.kind == ("unauthorized" if status == 401 else "http_error")
    assert without_host(error) == ("HOST refuses access (401)" if status == 401 else f"HOST answers {status}")


def test_an_upload_that_the_tokens_user_may_not_see_is_there(serve: StartServer) -> None:
    assert failure(serve, "/data/upload/1/a.jpg", 403).kind == "unauthorized"


@pytest.mark.parametrize(
    "kind",
    [
        FailureKind.TOO_LARGE, FailureKind.TIMEOUT, FailureKind.EMPTY, FailureKind.REDIRECTS, FailureKind.PROXY,
        FailureKind.BAD_ADDRESS,
    ],
)  # fmt: skip
def test_what_came_and_was_not_right_is_not_laid_to_label_studios_address(kind: FailureKind) -> None:
    source = resolve_source("https://shop.example/data/upload/1/a.jpg", 7, "http://studio:8080", None)
    assert isinstance(source, Remote)
    assert source.remark is not None
    assert source.remark.explain(ImageError(kind, "as it was")).kind == kind


@pytest.mark.parametrize("status", [401, 404, 500])
def test_another_address_of_label_studios_may_be_its_own(serve: StartServer, status: int) -> None:
    error = failure(serve, "{host}/tools/data/local-files/?d=a.jpg", status)
    assert error.kind == "other_label_studio"
    start, _, rest = str(error).partition(", set ")
    address = start.removeprefix("if Label Studio's own address in a browser is ")
    assert address.startswith("http://127.0.0.1:")
    assert address.endswith("/tools")
    assert rest.startswith(f"LABEL_STUDIO_HOST={address} (127.0.0.1:")


def test_where_label_studios_address_is_known_it_is_anothers(serve: StartServer) -> None:
    error = failure(serve, "{host}/data/upload/1/a.jpg", 401, outside_url="https://ours.example")
    assert error.kind == "other_label_studio"
    assert str(error).startswith("it is of a Label Studio at http://127.0.0.1:")
    assert "and ours is https://ours.example: correct the address, or LABEL_STUDIO_HOST (" in str(error)


def test_without_any_label_studio_it_is_told_how_to_name_it(serve: StartServer) -> None:
    error = failure(serve, "{host}/data/upload/1/a.jpg", 401, is_configured=False)
    assert "is your Label Studio, set LABEL_STUDIO_URL=http://127.0.0.1:" in str(error)


def test_a_private_address_that_may_be_label_studios_is_not_advised_to_be_trusted() -> None:
    source = resolve_source("https://localhost:18443/data/local-files/?d=host/h0.jpg", 7, STUDIO, None)
    with pytest.raises(ImageError) as raised:
        ImageFetcher(timeout_s=5, max_bytes=1000, connections=1).fetch(source, None)
    address = "https://localhost:18443"
    start = f"if Label Studio's own address in a browser is {address}, set LABEL_STUDIO_HOST={address} ("
    assert str(raised.value).startswith(start)


@pytest.mark.parametrize("login", ["someone:S3CR3T@", "S3CR3T@"])
def test_a_login_is_in_no_sentence(login: str) -> None:
    values = [
        f"https://{login}example.com/data/upload/1/a.jpg?token=S3CR3T",
        f"https://{login}drive.google.com/file/d/1AbC/view",
        f"ftp://{login}example.com/a.jpg",
        f"{login}example.com/a.jpg",
        f"http:/{login}example.com/a.jpg",
        f"s3a://{login}bucket/a.jpg",
    ]
    for value in values:
        assert "S3CR3T" not in told_of(value), value


def told_of(value: str) -> str:
    """What is told, now or where it can't be fetched."""
    try:
        source = resolve_source(value, 7, STUDIO, None)
    except ImageError as error:
        return str(error)
    assert isinstance(source, Remote)
    return source.remark.message if source.remark else ""


def test_an_image_that_is_there_needs_no_remark(serve: StartServer) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler.path.encode())(handler)

    studio = Studio(serve(answer).url)
    fetcher = ImageFetcher(timeout_s=5, max_bytes=1000, connections=1)
    for path in ("/srv/a.jpg", "/data/local-files/?d=sub%5Ca.jpg", "/data/upload/1/a,/data/upload/1/b.jpg"):
        assert fetcher.fetch(resolve_source(path, 7, studio.url, None), studio).content == path.encode()
