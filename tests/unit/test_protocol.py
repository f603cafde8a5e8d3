"""JSON in and out: as Python's own, but for the time that it takes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from yolo_backend.protocol import from_json, to_json


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
