"""What a task's value means, by the table of Label Studio's image addresses."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from yolo_backend.images.errors import ImageError
from yolo_backend.images.local_files import open_below
from yolo_backend.images.sources import Inline, LocalFile, Remote, origin_of, redact, resolve_source

STUDIO = "http://studio:8080"
PREFIXED = "https://example.com/label-studio"


def resolve(
    value: Any, *, task_id: int | None = 7, studio_url: str | None = STUDIO, root: Path | None = None
) -> Inline | LocalFile | Remote:
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


def test_a_double_slash_does_not_lead_to_another_host() -> None:
    url = address("//elsewhere.example/a.jpg")
    assert origin_of(url) == origin_of(STUDIO)


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
    ],
)
def test_a_data_address_holds_the_bytes(value: str, expected: bytes) -> None:
    assert resolve(value) == Inline(expected)


def test_a_large_data_address_survives_as_it_is() -> None:
    content = bytes(range(256)) * 5000
    assert resolve("data:image/jpeg;base64," + base64.b64encode(content).decode()) == Inline(content)


@pytest.mark.parametrize("value", ["data:", "data:image/png;base64", "data:image/png;base64,A", "data:;base64,SGVsb"])
def test_a_broken_data_address_is_told(value: str) -> None:
    assert failure(value).kind == "not_an_image"


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


def test_other_paths_are_not_read_from_disk(root: Path) -> None:
    assert isinstance(resolve("/data/upload/a.jpg?d=a.jpg", root=root), Remote)


# Origins


@pytest.mark.parametrize(
    "url", ["http://studio", "http://studio:80", "HTTP://STUDIO/", "http://studio/a?b", "http://me:pw@studio:80/x"]
)
def test_one_origin(url: str) -> None:
    assert origin_of(url) == origin_of("http://studio/")


@pytest.mark.parametrize(
    "url",
    [
        "https://studio",
        "http://studio:8080",
        "http://studio.example",
        "http://studio@elsewhere",
        "http://elsewhere/studio",
        "http://elsewhere#@studio",
        "http://elsewhere?@studio",
        "http://xn--studio",
        "//studio",
    ],
)
def test_another_origin(url: str) -> None:
    assert origin_of(url) != origin_of("http://studio/")


# What may stand in a log


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://bucket.example/a.jpg?X-Amz-Signature=S3CR3T", "https://bucket.example/a.jpg?..."),
        ("https://me:S3CR3T@example.com:8443/a.jpg", "https://example.com:8443/a.jpg"),
        ("https://example.com/a.jpg#S3CR3T", "https://example.com/a.jpg"),
        ("/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),
        ("/data/upload/1/a.jpg?token=S3CR3T", "/data/upload/1/a.jpg?..."),
        ("/data/local-files/?d=folder/a.jpg", "/data/local-files/?d=folder/a.jpg"),
        ("s3://bucket/folder/a.jpg", "s3://bucket/folder/a.jpg"),
        ("data:image/png;base64,S3CR3T", "data: address of 28 characters"),
        ("photo.jpg", "photo.jpg"),
        ("two\nlines\x1b[31m", "twolines?[31m"),
        ("http://[bad", "a malformed address"),
        ("http://example.com:port/S3CR3T", "a malformed address"),
        (None, "nothing"),
        (5, "a int"),
        ([1], "a list"),
        ({"a": "S3CR3T"}, "an object"),
    ],
)
def test_redacted(value: Any, expected: str) -> None:
    assert redact(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "  data:image/png;base64,S3CR3T",
        "\tDATA:image/png;base64,S3CR3T",
        "/data/local-files/?d=a.jpg&token=S3CR3T",
        "https://elsewhere.example/data/local-files/?X-Amz-Signature=S3CR3T",
        "http://someone:S3CR3T@[bad",
        "//someone:S3CR3T@example.com/a.jpg",
    ],
)
def test_no_secret_is_left(value: str) -> None:
    assert "S3CR3T" not in redact(value)


@pytest.mark.parametrize("value", ["x" * 10_000, "/" + "ü" * 10_000, "http://" + "a" * 10_000, "\u2028\u202e\r\n\0"])
def test_redacted_is_one_short_line(value: str) -> None:
    assert redact(value).isprintable()
    assert len(redact(value)) <= 200
