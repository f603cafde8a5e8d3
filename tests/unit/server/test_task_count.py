"""Tasks are counted from a stream of JSON, without keeping them."""

import io
import json
import tracemalloc
from typing import Any

import pytest

from yolo_backend.server.task_count import count_tasks


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"tasks": []}, (0, False)),
        ({"tasks": [{"id": 1, "data": {"tasks": [{}, {}]}}, {}], "params": {"context": None}}, (2, False)),
        ({"tasks": [{}] * 3, "params": {"context": {"result": []}}}, (3, True)),
        ({"params": {"context": {}}, "x": {"tasks": [{}]}, "tasks": [{}]}, (1, False)),
    ],
)
def test_tasks_and_context_are_seen(body: dict[str, Any], expected: tuple[int, bool]) -> None:
    assert count_tasks(io.BytesIO(json.dumps(body).encode())) == expected


def test_of_a_field_that_comes_twice_the_last_counts() -> None:
    """As the JSON reader takes it."""
    assert count_tasks(io.BytesIO(b'{"tasks": [{}, {}, {}], "tasks": [{}, {}]}')) == (2, False)
    assert count_tasks(io.BytesIO(b'{"tasks": [{}, {}, {}], "tasks": {"id": {}}}')) == (0, False)


@pytest.mark.parametrize("body", [b"", b"{", b'{"tasks": [{}', b"no"])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the words are the parser's
        count_tasks(io.BytesIO(body))


@pytest.mark.long
def test_the_tasks_are_not_kept() -> None:
    body = io.BytesIO(json.dumps({"tasks": [{"data": {"image": "/x.jpg", "n": n}} for n in range(200_000)]}).encode())
    tracemalloc.start()
    try:
        assert count_tasks(body) == (200_000, False)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000  # of 9 MB that would be 100 MB as objects
    finally:
        tracemalloc.stop()


def test_brackets_in_brackets_take_little_memory() -> None:
    body = io.BytesIO(b'{"tasks": [' + b"[" * 5000)  # with paths it would be 60 MB
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):  # noqa: PT011  the words are the parser's
            count_tasks(body)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
