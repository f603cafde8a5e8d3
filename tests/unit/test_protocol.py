"""JSON in and out, as Python's own, but for the time that it takes; and by what a project is known."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from yolo_backend.protocol import from_json, project_key, sent_project, to_json


@pytest.mark.parametrize(
    "value",
    [
        {"results": [{"result": [{"score": 0.1 + 0.2, "value": {"x": 1e-7}}], "model_version": "a-1"}, []]},
        {"name": "größer \U0001f600 \n"},
        {"half": "\ud800"},
        {"tasks": [{"data": {"image": "data:image/png;base64," + 30_000 * "iVBORw0K", "name": "größer"}}]},
        [],
        None,
    ],
)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert json.loads(to_json(value)) == value
    assert from_json(to_json(value)) == value
    assert from_json(json.dumps(value).encode()) == value


def test_a_large_number_is_written_in_full() -> None:
    assert json.loads(to_json({"large": 10**100})) == {"large": 10**100}


def test_a_key_that_is_a_number_becomes_text() -> None:
    assert json.loads(to_json({1: 2})) == {"1": 2}


@pytest.mark.parametrize("value", [10**30, -(2**63) - 1, {"a": {"b": [1.5, None, True]}}, "\x00", -0.0])
def test_odd_values_are_as_with_python(value: Any) -> None:
    assert repr(from_json(json.dumps(value).encode())) == repr(value)
    assert repr(json.loads(to_json(value))) == repr(value)


def test_what_has_no_json_is_told() -> None:
    with pytest.raises(TypeError):
        to_json({"score": np.array([1.0])})


def test_nan_is_let_pass() -> None:
    assert math.isnan(from_json(b'{"x": NaN}')["x"])


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe{}x", b"{} {}", b"'a'", b"[" * 3, b'["data:image/png"', b'["data:\xff"]']
)
def test_what_is_no_json_is_told(content: bytes) -> None:
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        from_json(content)


# Projects

URL = "http://studio.example/label-studio"
KEY = "7-b34c7854"


def test_the_key_of_a_project_stays_for_good() -> None:
    """Else nobody finds what was trained."""
    assert project_key(URL, "7.1700000000") == KEY


@pytest.mark.parametrize(
    "url",
    [
        "HTTP://Studio.Example/label-studio",
        "http://studio.example:80/label-studio",
        "http://studio.example/label-studio/",
    ],
)
def test_one_address_in_another_spelling_is_the_same_project(url: str) -> None:
    assert project_key(url, "7.1700000000") == KEY


@pytest.mark.parametrize(
    ("url", "project"),
    [
        ("https://studio.example/label-studio", "7.1700000000"),
        ("http://studio.example:8080/label-studio", "7.1700000000"),
        ("http://studio.example", "7.1700000000"),
        ("http://studio.example/Label-Studio", "7.1700000000"),
        ("http://other.example/label-studio", "7.1700000000"),
        (URL, "7.1700000001"),
        (URL, "8.1700000000"),
    ],
)
def test_another_address_id_or_time_is_another_project(url: str, project: str) -> None:
    key = project_key(url, project)
    assert key
    assert key != KEY


@pytest.mark.parametrize(
    "project",
    ["", "7", "7.", ".1700000000", "seven.1700000000", "7.1700000000.1", "../7.1700000000", "7/../8.1700000000",
     "7.1700000000\n", "\u0667.1700000000", "-7.1700000000", "7" * 19 + ".1700000000"],
)  # fmt: skip
def test_what_label_studio_would_not_send_has_no_key(project: str) -> None:
    assert project_key(URL, project) is None


def test_an_address_that_is_none_has_no_key() -> None:
    assert project_key("http://[", "7.1700000000") is None


@pytest.mark.parametrize("created_at", ["2023-11-14T22:13:20.987654Z", "2023-11-15T00:13:20+02:00"])
def test_what_is_sent_is_the_id_and_the_second_of_creation(created_at: str) -> None:
    assert sent_project(7, created_at) == "7.1700000000"
