"""Web addresses as text: their origin, and what of them may be shown."""

from __future__ import annotations

from typing import Any

import pytest

from yolo_backend.addresses import file_name_in, origin_of, redact, shown_host, uploaded_name


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
        (5, "a number"),
        (5.5, "a number"),
        (True, "true or false"),
        ("azure-blob://c/ü #1.jpg", "azure-blob://c/ü #1.jpg"),
        ("s3://bucket/what? & why=#1.jpg", "s3://bucket/what? & why=#1.jpg"),
        ("GS://Bucket/a b%20c+d.jpg", "GS://Bucket/a b%20c+d.jpg"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a.jpg?version", "s3://bucket/a.jpg?..."),
        ("/srv/a.jpg?", "/srv/a.jpg?"),
        ("C:\\data\\media\\a.jpg", "C:\\data\\media\\a.jpg"),
        ("c:/photos/a#1.jpg", "c:/photos/a#1.jpg"),
        ("\\\\server\\share\\a.jpg", "\\\\server\\share\\a.jpg"),
        ("/srv/datasets/a #1?.jpg", "/srv/datasets/a #1?.jpg"),
        ("~/a.jpg", "~/a.jpg"),
        ("file:///srv/a.jpg", "file:///srv/a.jpg"),
        ("hdfs://node:9000/a.jpg", "hdfs://node:9000/a.jpg"),
        ("HTTP://HOST/a.jpg", "http://HOST/a.jpg"),
        ("//cdn.example.org/a.jpg", "//cdn.example.org/a.jpg"),
        ("/data/upload/1/a.jpg,/data/upload/1/b.jpg", "/data/upload/1/a.jpg,/data/upload/1/b.jpg"),
        ("/data/upload/1/16:30@home.jpg", "/data/upload/1/16:30@home.jpg"),
        ("/data/local-files/?d=sub%5Cplain.jpg", "/data/local-files/?d=sub%5Cplain.jpg"),
        ("/data/local-files/?x=1&d=a.jpg&d=b.jpg", "/data/local-files/?d=b.jpg"),
        ("https://out:8443/ls/data/local-files/?d=a.jpg", "https://out:8443/ls/data/local-files/?d=a.jpg"),
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
        "someone:S3CR3T@example.com/a.jpg",
        "http:/someone:S3CR3T@example.com/a.jpg",
        "https://someone:p@S3CR3T@example.com/a.jpg",
        "ftp://someone:S3CR3T@example.com/a.jpg",
        "s3://KEY:S3CR3T@bucket/a.jpg",
        "s3://bucket/a.jpg?X-Amz-Date=1&X-Amz-Signature=S3CR3T",
        "gs://bucket/a.jpg?X-Goog-Credential=S3CR3T",
        "azure-blob://container/a.jpg?sv=2024&sig=S3CR3T",
        "azure-blob://container/a#access_token=S3CR3T",
        '<img src="https://someone:S3CR3T@example.com/a.jpg">',
        '<img src="https://example.com/a.jpg?sig=S3CR3T">',
        '{"url": "https://someone:S3CR3T@example.com/a.jpg"}',
        "/data/upload/1/a.jpg,https://someone:S3CR3T@example.com/a.jpg",
        "file:///a.jpg?token=S3CR3T",
        "/srv/a.jpg#token=S3CR3T",
        "http://someone:S3 CR3T@example.com/a.jpg".replace("S3 CR3T", "pa ss S3CR3T"),
        "http://someone:pa\u00a0ss S3CR3T@example.com/a.jpg",
        "https:///someone:S3CR3T@example.com/a.jpg",
        "http:////someone:S3CR3T@example.com/a.jpg",
        "///someone:S3CR3T@example.com/a.jpg",
    ],
)
def test_no_secret_is_left(value: str) -> None:
    assert "S3CR3T" not in redact(value)


@pytest.mark.parametrize("value", ["x" * 10_000, "/" + "ü" * 10_000, "http://" + "a" * 10_000, "\u2028\u202e\r\n\0"])
def test_redacted_is_one_short_line(value: str) -> None:
    assert redact(value).isprintable()
    assert len(redact(value)) <= 200


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://minio:9000/a?b", "minio:9000"),
        ("https://minio:443/a", "minio"),
        ("http://me:s3cr3t@minio/a", "minio"),
        ("http://" + "a" * 300, "a" * 77 + "..."),
        ("http://[bad", "the server"),
        ("", "the server"),
    ],
)
def test_of_an_address_the_host_alone_is_shown(url: str, host: str) -> None:
    assert shown_host(url) == host


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/upload/12/0123abcd-a-b.jpg", "a-b.jpg"),
        ("/data/upload/12/0123abcd-%C3%A4.jpg", "ä.jpg"),
        ("/tools/label-studio/data/upload/12/0123abcd-a.jpg", "a.jpg"),
        ("/data/upload/12/a.jpg", None),
        ("/data/local-files/?d=0123abcd-a.jpg", None),
        ("https://example.com/0123abcd-a.jpg", None),
    ],
)
def test_the_name_of_an_upload_is_known_by_its_address(address: str, name: str | None) -> None:
    assert uploaded_name(address) == name


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/label-studio/data/upload/3/523e3ed0-a%20b.jpg", "a b.jpg"),
        ("/data/upload/3/523e3ed0-a.jpg?query=1", "a.jpg"),
        ("/data/local-files/?d=shelf/row%202/9.jpg", "9.jpg"),
        ("https://a.test/photos/1.jpg?X-Amz-Signature=a/b&d=c.jpg", "1.jpg"),
        ("https://a.test/photos/1/", "1"),
        ("s3://bucket/day 1/7.png", "7.png"),
        ("1.jpg", "1.jpg"),
        ("https://a.test/", ""),
        ("data:image/png;base64,AAAA/b.png", ""),
        ("DATA:image/png,/b.png", ""),
        ("http://[broken/1.jpg", ""),
        (None, ""),
        (["1.jpg"], ""),
    ],
)
def test_the_name_of_the_file_at_an_address(address: Any, name: str) -> None:
    assert file_name_in(address) == name
