"""What a task's value means, by the table of Label Studio's image addresses."""

from __future__ import annotations

import base64
import contextlib
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from yolo_backend.addresses import redact
from yolo_backend.images.errors import ImageError
from yolo_backend.images.local_files import open_below
from yolo_backend.images.sources import Inline, LocalFile, Remote, Source, resolve_source

STUDIO = "http://studio:8080"
PREFIXED = "https://example.com/label-studio"


def resolve(
    value: Any, *, task_id: int | None = 7, studio_url: str | None = STUDIO, root: Path | None = None
) -> Source:
    return resolve_source(value, task_id, studio_url, root)


def failure(value: Any, *, task_id: int | None = 7, studio_url: str | None = STUDIO) -> ImageError:
    with pytest.raises(ImageError) as raised:
        resolve_source(value, task_id, studio_url, None)
    return raised.value


def address(value: str, studio_url: str = STUDIO) -> str:
    source = resolve(value, studio_url=studio_url)
    assert isinstance(source, Remote)
    return source.url


# What is no image address


@pytest.mark.parametrize(
    "value", [None, "", "  ", "\n", 5, 5.0, True, [], ["/a.jpg"], {}, {"url": "/a.jpg"}, b"/a.jpg"]
)
def test_a_value_of_another_type_is_told(value: Any) -> None:
    assert failure(value).kind == "wrong_type"


@pytest.mark.parametrize(
    "value",
    [
        "photo.jpg",
        "folder/photo.jpg",
        "./photo.jpg",
        "../../etc/passwd",
        "C:\\photo.jpg",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://example.com/a.jpg",
        "javascript:alert(1)",
        "gopher://example.com",
        "http+unix://socket/a.jpg",
        "redis:6379/x",
        ": /a.jpg",
        "two\nlines: x",
        "x" * 5000 + ": y",
    ],
)
def test_addresses_that_are_not_served_are_told_in_one_short_line(value: str) -> None:
    error = failure(value)
    assert error.kind == "unsupported"
    assert str(error).isprintable()
    assert len(str(error)) < 500


@pytest.mark.parametrize("value", ["/data/upload/1/a.jpg", "/data/local-files/?d=a.jpg", "s3://bucket/a.jpg"])
def test_without_label_studios_address_its_images_cannot_be_had(value: str) -> None:
    error = failure(value, studio_url=None)
    assert error.kind == "no_label_studio"
    assert "LABEL_STUDIO_URL" in str(error)


def test_a_cloud_address_needs_the_tasks_id() -> None:
    assert failure("s3://bucket/a.jpg", task_id=None).kind == "unsupported"


@pytest.mark.parametrize("start", ["http://example.com/", "/data/upload/", "s3://bucket/", "x", "nonsense:"])
def test_an_endless_address_is_told(start: str) -> None:
    value = start + "a" * 20_000
    error = failure(value)
    assert error.kind == "bad_address"
    assert len(str(error)) < 100
    assert redact(value) == f"an address of {len(value)} characters"


@pytest.mark.parametrize("start", ["http://example.com/", "/data/upload/1/", "s3://bucket/", "folder/"])
def test_half_of_a_character_is_told(start: str) -> None:
    error = failure(f"{start}\ud800.jpg")
    assert error.kind == "bad_address"
    assert redact(f"{start}\ud800.jpg") == f"{start}?.jpg"


HOSTILE = [
    "a:",
    ":/a:",
    "?sig",
    "?sig&",
    "//@",
    "a.",
    "-.a",
    " ",
    ", /",
    "[",
    "<",
    "%25",
    "\\",
    "a@",
    "/data/",
    "'",
    "{",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("start", ["", "https://", "/data/upload/", "s3://b/", "/data/local-files/?d="])
def test_no_value_takes_long(piece: str, start: str) -> None:
    value = start + piece * (16_000 // len(piece)) + "x"
    started_at = time.process_time()
    for _ in range(2):
        redact(value)
        with contextlib.suppress(ImageError):
            resolve(value)
    assert time.process_time() - started_at < 1  # quadratic ones take minutes


# Uploads and Local Files


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),
        ("  /data/upload/1/a.jpg\n", "/data/upload/1/a.jpg"),
        ("/data/upload/1/my%20photo.jpg", "/data/upload/1/my%20photo.jpg"),
        ("/data/upload/1/my photo.jpg", "/data/upload/1/my%20photo.jpg"),
        ("/data/upload/1/größe.jpg", "/data/upload/1/gr%C3%B6%C3%9Fe.jpg"),
        ("/data/upload/1/%E7%8C%AB.jpg", "/data/upload/1/%E7%8C%AB.jpg"),
        ("/data/upload/1/猫.jpg", "/data/upload/1/%E7%8C%AB.jpg"),
        ("/data/upload/1/a#1.jpg", "/data/upload/1/a%231.jpg"),
        ("/data/upload/1/a%231.jpg", "/data/upload/1/a%231.jpg"),
        ("/data/upload/1/a'(1)+b,c.jpg", "/data/upload/1/a'(1)+b,c.jpg"),
        ("/data/upload/1/16:30.jpg", "/data/upload/1/16:30.jpg"),
        ('/data/upload/1/"a".jpg', "/data/upload/1/%22a%22.jpg"),
        ("/data/local-files/?d=folder/a.jpg", "/data/local-files/?d=folder/a.jpg"),
        ("/data/local-files/?d=folder%2Fmy%20photo.jpg", "/data/local-files/?d=folder%2Fmy%20photo.jpg"),
        ("/data/local-files/?d=my photo.jpg", "/data/local-files/?d=my%20photo.jpg"),
        ("/data/local-files/?d=größe.jpg", "/data/local-files/?d=gr%C3%B6%C3%9Fe.jpg"),
        ("/data/local-files/?d=a#1.jpg", "/data/local-files/?d=a%231.jpg"),
    ],
)
@pytest.mark.parametrize("studio_url", [STUDIO, STUDIO + "/"])
def test_a_path_is_label_studios(value: str, expected: str, studio_url: str) -> None:
    assert address(value, studio_url) == STUDIO + expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/data/upload/1/a.jpg", "/label-studio/data/upload/1/a.jpg"),
        ("/label-studio/data/upload/1/a.jpg", "/label-studio/data/upload/1/a.jpg"),
        ("/data/local-files/?d=a.jpg", "/label-studio/data/local-files/?d=a.jpg"),
        ("/label-studio/data/local-files/?d=a.jpg", "/label-studio/data/local-files/?d=a.jpg"),
        ("/label-studio-2/data/upload/1/a.jpg", "/label-studio/label-studio-2/data/upload/1/a.jpg"),
    ],
)
def test_behind_a_path_prefix(value: str, expected: str) -> None:
    assert address(value, PREFIXED) == "https://example.com" + expected


@pytest.mark.parametrize("value", ["//elsewhere.example/a.jpg", "/\\elsewhere.example/a.jpg"])
@pytest.mark.parametrize(
    ("studio_url", "outside_url", "expected"),
    [
        (STUDIO, None, "http://elsewhere.example/a.jpg"),
        (STUDIO, "https://labels.example", "https://elsewhere.example/a.jpg"),
        (PREFIXED, None, "https://elsewhere.example/a.jpg"),
        (None, None, "https://elsewhere.example/a.jpg"),
    ],
)
def test_an_address_without_its_scheme_has_that_of_the_page(
    value: str, studio_url: str | None, outside_url: str | None, expected: str
) -> None:
    assert resolve_source(value, 7, studio_url, None, lambda: outside_url) == Remote(expected)


# Addresses of the web and of clouds


@pytest.mark.parametrize(
    "value",
    ["http://example.com/a.jpg", "https://example.com/a.jpg?b=c#d", "HTTP://EXAMPLE.COM/a.jpg", "http://[::1]:80/a"],
)
@pytest.mark.parametrize("studio_url", [STUDIO, None])
def test_web_addresses_stay_as_they_are(value: str, studio_url: str | None) -> None:
    assert resolve(value, studio_url=studio_url) == Remote(value)


@pytest.mark.parametrize(
    "value",
    [
        "s3://bucket/a.jpg",
        "gs://bucket/folder/a.jpg",
        "azure-blob://container/a.jpg",
        "S3://bucket/a.jpg",
        "s3://bucket/my photo.jpg",
        "s3://bucket/größe 猫.jpg",
        "s3://bucket/100%.jpg",
        "s3://bucket/a#1?x=y&z.jpg",
        "s3://bucket/???>>>~~~.jpg",
    ],
)
@pytest.mark.parametrize(
    ("studio_url", "path"), [(STUDIO, "/tasks/7/presign/"), (PREFIXED, "/label-studio/tasks/7/presign/")]
)
def test_cloud_addresses_are_presigned_by_label_studio(value: str, studio_url: str, path: str) -> None:
    url = urlsplit(address(value, studio_url))
    assert f"{url.scheme}://{url.netloc}{url.path}" == studio_url + path.removeprefix("/label-studio")
    # As Label Studio's view reads it: the query, then URL-safe base64.
    (fileuri,) = parse_qs(url.query)["fileuri"]
    assert base64.urlsafe_b64decode(fileuri.encode()).decode() == value


# Label Studio's own files by its address in a browser


def own(value: str, outside_url: str | None, *, studio_url: str = STUDIO, root: Path | None = None) -> Source:
    return resolve_source(value, 7, studio_url, root, lambda: outside_url)


OWN_PATHS = [
    "/data/upload/3/0123abcd-a.jpg",
    "/data/local-files/?d=host/h0.jpg",
    "/data/local-files?d=host/h0.jpg",
    "/storage-data/uploaded/?filepath=upload/3/a.jpg",
    "/tasks/5/presign/?fileuri=czM6Ly9iL2E=",
    "/tasks/5/resolve/?fileuri=czM6Ly9iL2E=",
    "/projects/5/presign/?fileuri=czM6Ly9iL2E=",
    "/api/projects/5/file-proxy/?url=aHR0cHM6Ly94",
]


@pytest.mark.parametrize("path", OWN_PATHS)
@pytest.mark.parametrize("outside_url", ["https://localhost:18443", "https://x.org/label-studio", "http://[::1]:80"])
@pytest.mark.parametrize("studio_url", [STUDIO, STUDIO + "/", STUDIO + "/inner"])
def test_an_own_file_is_fetched_from_the_address_that_we_reach(path: str, outside_url: str, studio_url: str) -> None:
    source = own(outside_url + path, outside_url, studio_url=studio_url)
    assert isinstance(source, Remote)
    assert source.url == studio_url.rstrip("/") + path


@pytest.mark.parametrize(
    "value",
    [
        "HTTPS://LocalHost:18443/data/upload/1/a.jpg",
        "https://someone:pw@localhost:18443/data/upload/1/a.jpg",
        "https://localhost:18443/static/../data/upload/1/a.jpg",
        " https://localhost:18443/data/\nupload/1/a.jpg",
        "//localhost:18443/data/upload/1/a.jpg",
    ],
)
def test_an_own_address_is_read_as_a_browser_reads_it(value: str) -> None:
    source = own(value, "https://localhost:18443")
    assert isinstance(source, Remote)
    assert source.url == STUDIO + "/data/upload/1/a.jpg"


@pytest.mark.parametrize("value", ["https://x.org/data/upload/1/größe 100%.jpg", "/data/upload/1/größe 100%.jpg"])
def test_an_own_name_is_quoted_once(value: str) -> None:
    source = own(value, "https://x.org")
    assert isinstance(source, Remote)
    assert source.url == STUDIO + "/data/upload/1/gr%C3%B6%C3%9Fe%20100%25.jpg"


@pytest.mark.parametrize(
    "value",
    [
        "https://localhost/data/upload/1/a.jpg",  # another port
        "http://localhost:18443/data/upload/1/a.jpg",  # another scheme
        "https://localhost.example:18443/data/upload/1/a.jpg",
        "https://localhost:18443@elsewhere.example/data/upload/1/a.jpg",
        "https://elsewhere.example/https://localhost:18443/data/upload/1/a.jpg",
        "https://localhost:18443/images/a.jpg",  # of the same proxy, but not Label Studio's
        "https://localhost:18443/images/data/upload/1/a.jpg",
        "https://localhost:18443/images/?u=/data/upload/1/a.jpg",
        "https://localhost:18443/data/upload/../../images/a.jpg",
        "https://localhost:18443/data/local-files-of-others/?d=a.jpg",
    ],
)
def test_what_is_elsewhere_stays_there(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    source = own(value, "https://localhost:18443", root=tmp_path)
    assert isinstance(source, Remote)
    assert source.url == value


@pytest.mark.parametrize(
    "value",
    [
        "https://x.org/data/upload/1/a.jpg",  # of another application, beside Label Studio's prefix
        "https://x.org/label-studio-2/data/upload/1/a.jpg",
        "https://x.org/label-studio/../data/upload/1/a.jpg",
        "https://x.org/label-studio/%2e%2e/data/upload/1/a.jpg",
    ],
)
def test_the_path_prefix_counts(value: str) -> None:
    source = own(value, "https://x.org/label-studio")
    assert isinstance(source, Remote)
    assert source.url == value


def test_where_nobody_knows_the_address_outside_it_stays_as_it_is() -> None:
    value = "https://localhost:18443/data/local-files/?d=a.jpg"
    for source in (own(value, None), resolve(value), resolve(value, studio_url=None)):
        assert isinstance(source, Remote)
        assert source.url == value


@pytest.mark.parametrize(
    ("value", "outside_url"),
    [
        ("https://localhost:18443/data/local-files/?d=a.jpg", "https://localhost:18443"),
        ("https://x.org/ls/data/local-files/?d=a.jpg", "https://x.org/ls"),
        ("https://x.org/ls/data/local-files/?d=sub/..%2F/a.jpg&d=a.jpg", "https://x.org/ls"),
        (STUDIO + "/data/local-files/?d=a.jpg", None),
        ("/ls/data/local-files/?d=a.jpg", "https://x.org/ls"),
    ],
)
def test_an_own_local_file_is_read_from_the_folder_by_any_of_its_addresses(
    root: Path, value: str, outside_url: str | None
) -> None:
    assert own(value, outside_url, root=root) == LocalFile(root, "a.jpg")


@pytest.mark.parametrize("path", ["?d=../secret.jpg", "?d=%2e%2e%2fsecret.jpg", "?d=way-out.jpg"])
def test_by_its_address_outside_no_file_leads_out_of_the_folder(root: Path, path: str) -> None:
    source = own(f"https://x.org/data/local-files/{path}", "https://x.org", root=root)
    assert isinstance(source, Remote)
    assert unquote(source.url) == unquote(f"{STUDIO}/data/local-files/{path}")


def test_the_prefix_outside_is_not_there_on_our_way() -> None:
    source = own("/label-studio/data/upload/1/a.jpg", "https://x.org/label-studio")
    assert isinstance(source, Remote)
    assert source.url == STUDIO + "/data/upload/1/a.jpg"


@pytest.mark.parametrize(
    "value",
    [
        "/data/upload/1/a.jpg",
        "/data/local-files/?d=a.jpg",
        STUDIO + "/data/upload/1/a.jpg",
        "https://example.com/a.jpg",
        "s3://bucket/a.jpg",
        "data:,x",
        "/srv/a.jpg",
    ],
)
def test_nobody_is_asked_for_the_address_outside_where_it_makes_no_difference(value: str) -> None:
    def nobody() -> str:
        raise AssertionError("asked")

    resolve_source(value, 7, STUDIO, None, nobody)


# data: addresses


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("data:image/png;base64,SGVsbG8=", b"Hello"),
        ("DATA:image/png;BASE64,SGVsbG8=", b"Hello"),
        ("data:;base64,SGVsbG8=", b"Hello"),
        ("data:image/png;charset=utf-8;base64,SGVsbG8=", b"Hello"),
        ("data:image/png;base64,SGVsbG8", b"Hello"),
        ("data:image/png;base64,SGVs\nbG8=", b"Hello"),
        ("data:image/png;base64,SGVs\r\n bG8", b"Hello"),
        ("data:image/png;base64,SGVs bG8 ", b"Hello"),
        ("data:image/png;base64,SGVsbG8%3D", b"Hello"),
        ("data:image/png;base64,%2B%2F8=", b"\xfb\xff"),
        ("data:image/png;base64,+/8=", b"\xfb\xff"),
        ("data:image/svg+xml,%3Csvg%2F%3E", b"<svg/>"),
        ("data:,a,b", b"a,b"),
        ("data:image/png;base64,", b""),
        ("data:image/png; base64 ,SGVsbG8=", b"Hello"),
        ("data:image/png;base64,SGVsbG8=#part", b"Hello"),
        ("data:image/png,notbase64", b"notbase64"),
    ],
)
def test_a_data_address_holds_the_bytes(value: str, expected: bytes) -> None:
    assert resolve(value) == Inline(expected)


def test_a_large_data_address_survives_as_it_is() -> None:
    content = bytes(range(256)) * 5000
    assert resolve("data:image/jpeg;base64," + base64.b64encode(content).decode()) == Inline(content)


@pytest.mark.parametrize(
    "value",
    [
        "data:",
        "data:image/png;base64",
        "data:image/png;base64,A",
        "data:;base64,SGVsb",
        "data:;base64,SGVs-_8=",  # of the alphabet for addresses, which no browser takes here
        "data:;base64,<SGVsbG8=>",
    ],
)
def test_a_broken_data_address_is_told(value: str) -> None:
    assert failure(value).kind == "not_an_image"


def test_base64_that_is_not_said_to_be_is_told() -> None:
    content = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(60)).decode()
    error = failure(f"data:image/jpeg,{content}")
    assert (error.kind, str(error)) == (
        "not_an_image",
        "the data: address lacks ;base64 before its comma: write it there",
    )


def test_a_data_address_of_escapes_alone_is_told() -> None:
    error = failure("data:," + "%41" * 1_000_001)
    assert error.kind == "too_large"


# Local Files on this machine's disk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    for name in ("a.jpg", "sub/my photo.jpg", "größe 猫.jpg", "100%.jpg", "a+b.jpg"):
        (folder / name).write_bytes(name.encode())
    (folder / "way-out.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "link-to-a.jpg").symlink_to(folder / "a.jpg")
    (folder / "linked").symlink_to(folder / "sub")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("d=a.jpg", "a.jpg"),
        ("d=/a.jpg", "a.jpg"),
        ("d=sub/my%20photo.jpg", "sub/my photo.jpg"),
        ("d=sub%2Fmy%20photo.jpg", "sub/my photo.jpg"),
        ("d=sub/my photo.jpg", "sub/my photo.jpg"),
        ("d=./sub//my photo.jpg", "sub/my photo.jpg"),
        ("d=///a.jpg", "a.jpg"),
        ("d=größe 猫.jpg", "größe 猫.jpg"),
        ("d=gr%C3%B6%C3%9Fe%20%E7%8C%AB.jpg", "größe 猫.jpg"),
        ("d=100%25.jpg", "100%.jpg"),
        ("d=100%.jpg", "100%.jpg"),
        ("d=a%2Bb.jpg", "a+b.jpg"),
        ("d=a.jpg&x=1", "a.jpg"),
        ("x=1&d=a.jpg", "a.jpg"),
        ("d=missing.jpg&d=a.jpg", "a.jpg"),  # of two, Django takes the last
    ],
)
@pytest.mark.parametrize("prefix", ["", "/label-studio"])
def test_a_local_file_that_is_mounted_is_read_from_disk(root: Path, query: str, name: str, prefix: str) -> None:
    source = resolve(f"{prefix}/data/local-files/?{query}", root=root)
    assert isinstance(source, LocalFile)
    assert source.root == root
    with open_below(root, source.name) as file:
        assert file.read() == name.encode()


@pytest.mark.parametrize(
    "query",
    [
        "d=missing.jpg",
        "d=sub",
        "d=",
        "",
        "d=../secret.jpg",
        "d=%2e%2e%2fsecret.jpg",
        "d=..%2F..%2F..%2Fetc%2Fpasswd",
        "d=sub/../../secret.jpg",
        "d=sub/../a.jpg",
        "d=sub%2f%2e%2e%2fa.jpg",
        "d=%2Fetc%2Fpasswd",
        "d=linked/my photo.jpg",
        "d=link-to-a.jpg",
        "d=pipe",
        "d=\0",
        "d=a.jpg%00.png",
        "d=way-out.jpg",
        "d=a.jpg&d=",
        "d=a.jpg&d=missing.jpg",
        "d=sub%5Cmy photo.jpg",
        "d=//etc/passwd",
        "d=%00",
        "d=" + "x" * 5000,
        "d=" + "x/" * 5000,
    ],
)
def test_a_local_file_outside_the_folder_or_missing_is_asked_of_label_studio(root: Path, query: str) -> None:
    source = resolve(f"/data/local-files/?{query}", root=root)
    assert isinstance(source, Remote)
    assert source.url.startswith(STUDIO + "/data/local-files/?")
    assert unquote(source.url).endswith(unquote(query))


def test_a_file_whose_name_holds_a_number_sign_is_read_from_disk(root: Path) -> None:
    (root / "a#1.jpg").write_bytes(b"a")
    for query in ("d=a#1.jpg", "d=a%231.jpg"):
        assert resolve(f"/data/local-files/?{query}", root=root) == LocalFile(root, "a#1.jpg")


def test_without_the_slash_it_is_the_same_file(root: Path) -> None:
    assert resolve("/data/local-files?d=a.jpg", root=root) == LocalFile(root, "a.jpg")


def test_other_paths_are_not_read_from_disk(root: Path) -> None:
    assert isinstance(resolve("/data/upload/a.jpg?d=a.jpg", root=root), Remote)


# Origins


# What may stand in a log


@pytest.mark.parametrize("value", ["data:,\ud800", "data:image/png;base64,\udfff"])
def test_half_of_a_character_of_an_inline_image_is_told(value: str) -> None:
    assert failure(value).kind == "bad_address"


@pytest.mark.parametrize(
    "value", ["/pre//]/data/local-files/x", "/pre//[/data/local-files/?d=a.jpg", "/pre//]/data/upload/1/a.jpg"]
)
def test_a_path_that_looks_like_a_broken_host_is_a_path(value: str, tmp_path: Path) -> None:
    source = resolve_source(value, 7, "http://studio:8080/pre", tmp_path)
    assert isinstance(source, Remote)
    assert source.url.startswith("http://studio:8080/pre//")


def test_an_ipv6_host_keeps_its_brackets() -> None:
    source = resolve_source("http://[2001:db8::1]:8080/data/upload/1/a.jpg", 7, None, None)
    assert isinstance(source, Remote)
    assert source.remark is not None
    assert "set LABEL_STUDIO_URL=http://[2001:db8::1]:8080 and" in source.remark.message
