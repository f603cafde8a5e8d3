"""Versions: what a server or a file system says of the bytes, and how far that can be believed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from yolo_backend.images.versions import Validators, read_stamp, read_validators

URL = "http://images.example/a.jpg?signature=1"
PLACE = "http://images.example/a.jpg"
NOON, NEXT_MINUTE, BEFORE = (f"Sun, 22 Nov 2026 {at} GMT" for at in ("12:00:00", "12:01:00", "12:00:59"))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"ETag": '"a1"'}, Validators("If-None-Match", '"a1"', PLACE)),
        ({"ETag": 'W/"a1"'}, None),
        ({"ETag": "a1"}, None),
        ({"ETag": '""'}, None),
        ({"ETag": '"a", "b"'}, None),
        ({"ETag": '"a\r\nX: y"'}, None),
        ({"ETag": f'"{"x" * 300}"'}, None),
        ({"ETag": '"a1"', "Cache-Control": "max-age=60"}, Validators("If-None-Match", '"a1"', PLACE)),
        ({"ETag": '"a1"', "Cache-Control": "private, No-Store"}, None),
        ({"Last-Modified": NOON, "Date": NEXT_MINUTE}, Validators("If-Modified-Since", NOON, URL)),
        ({"Last-Modified": NOON, "Date": BEFORE}, None),
        ({"Last-Modified": NEXT_MINUTE, "Date": NOON}, None),
        ({"Last-Modified": NOON}, None),
        ({"Last-Modified": NOON, "Date": NEXT_MINUTE, "Cache-Control": "no-store"}, None),
        ({"Last-Modified": "long ago", "Date": NEXT_MINUTE}, None),
        ({"Last-Modified": "Sun, 22 Nov 99999 12:00:00 GMT", "Date": NEXT_MINUTE}, None),
        ({"Last-Modified": f"{NOON}\r\n", "Date": NEXT_MINUTE}, None),
        (
            {"ETag": 'W/"a1"', "Last-Modified": NOON, "Date": NEXT_MINUTE},
            Validators("If-Modified-Since", NOON, URL),
        ),
        ({"ETag": '"a1"', "Last-Modified": NOON, "Date": NEXT_MINUTE}, Validators("If-None-Match", '"a1"', PLACE)),
    ],
)
def test_what_is_kept_of_an_answers_headers(headers: dict[str, str], expected: Validators | None) -> None:
    assert read_validators(headers, URL) == expected


@pytest.mark.parametrize(
    ("url", "etag_goes", "date_goes"),
    [
        (URL, True, True),
        (PLACE, True, False),
        (PLACE + "?signature=2", True, False),
        (PLACE + "/b", False, False),
        ("http://images.example/b.jpg?signature=1", False, False),
        ("http://images.example:81/a.jpg?signature=1", False, False),
        ("https://images.example/a.jpg?signature=1", False, False),
        ("http://other.example/a.jpg?signature=1", False, False),
        ("http://other.example/?" + URL, False, False),
    ],
)
def test_only_the_address_that_gave_them_is_asked_with_them(url: str, etag_goes: bool, date_goes: bool) -> None:
    by_etag = read_validators({"ETag": '"a1"'}, URL)
    by_date = read_validators({"Last-Modified": NOON, "Date": NEXT_MINUTE}, URL)
    assert by_etag is not None
    assert by_date is not None
    assert by_etag.headers_for(url) == ({"If-None-Match": '"a1"'} if etag_goes else {})
    assert by_date.headers_for(url) == ({"If-Modified-Since": NOON} if date_goes else {})


def set_age(file: Path, age_s: float) -> None:
    modified_s = time.time() - age_s
    os.utime(file, (modified_s, modified_s))


@pytest.mark.parametrize(("age_s", "is_certain"), [(3600, True), (3, True), (1, False), (0, False), (-3600, False)])
def test_a_young_file_has_no_stamp(tmp_path: Path, age_s: float, is_certain: bool) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"x")
    set_age(file, age_s)
    assert (read_stamp(file.stat()) is not None) == is_certain


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    file, other = tmp_path / "a.jpg", tmp_path / "b.jpg"
    file.write_bytes(b"old")
    set_age(file, 3600)
    modified = file.stat()
    stamps = [read_stamp(modified), read_stamp(file.stat())]
    assert stamps[0] == stamps[1]

    file.write_bytes(b"new")  # in place, of the same length, and with the time of the old one
    os.utime(file, ns=(modified.st_atime_ns, modified.st_mtime_ns))
    stamps.append(read_stamp(file.stat()))
    other.write_bytes(b"new")
    os.utime(other, ns=(modified.st_atime_ns, modified.st_mtime_ns))
    other.replace(file)
    stamps.append(read_stamp(file.stat()))
    set_age(file, 7200)
    stamps.append(read_stamp(file.stat()))
    assert None not in stamps
    assert len(set(stamps)) == 4
