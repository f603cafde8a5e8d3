"""What is kept of a waiting task, and what it takes."""

import json
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest

from yolo_backend.labels.task_values import value_of
from yolo_backend.protocol import from_json
from yolo_backend.serving.kept import kept_of, size_of


def plan_of(*values: tuple[str, str | None]) -> Any:
    controls = [SimpleNamespace(control=SimpleNamespace(value=value, labels_value=labels)) for value, labels in values]
    return SimpleNamespace(controls=controls)


@pytest.mark.parametrize("value", ["$image", "$a.b", "$a[0]", "$a.b[0].c", "/photos/$file", "/$a.b/$file", "$my image"])
@pytest.mark.parametrize(
    "fields",
    [
        {"image": "1", "file": "f", "my image": "2", "a": {"b": "3"}},
        {"a.b": "4", "a": {"b": "5"}, "a[0]": "6", "file": 7},
        {"a": ["8", "9"]},
        {"a": {"b": [{"c": "10"}]}},
        {},
    ],
)
def test_a_value_means_the_same_in_what_is_kept(value: str, fields: dict[str, Any]) -> None:
    def meaning(data: Any) -> Any:
        try:
            return value_of(data, value)
        except KeyError as error:
            return error.args, list(data)

    data = {"other": "x" * 1000, **fields}
    kept = kept_of({"id": 5, "data": data, "annotations": [{}]}, plan_of((value, None)))
    assert kept.keys() == {"id", "data"}
    assert meaning(kept["data"]) == meaning(data)
    assert size_of(kept) < 1500


def test_labels_that_come_with_the_task_are_kept() -> None:
    data = {"image": "/x.jpg", "labels": [{"value": "car"}], "other": 1}
    kept = kept_of({"id": 5, "data": data}, plan_of(("$image", "$labels")))
    assert kept == {"id": 5, "data": {"image": "/x.jpg", "labels": [{"value": "car"}]}}


@pytest.mark.parametrize("data", [None, "text", [1]])
def test_data_that_is_no_object_is_not_kept(data: Any) -> None:
    assert kept_of({"id": True, "data": data}, plan_of(("$image", None))) == {}


SHAPES = [
    {"id": 7, "data": {"image": "/data/upload/1/x.jpg"}, "annotations": [], "predictions": []},
    {"id": 7, "data": {"image": "data:image/png;base64," + "A" * 2_000_000}},
    {"id": 7, "data": {"image": "/é.jpg", "texts": ["\N{SNOWMAN}" * 500, 1.5, True, None, 12345]}},
    {"id": 7, "annotations": [{"value": {"x": n + 0.5, "y": n * 1.25, "labels": ["car"]}} for n in range(200)]},
]


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES)
def test_the_size_is_within_twice_the_truth(shape: dict[str, Any]) -> None:
    content = json.dumps([shape] * (20 if len(str(shape)) > 100_000 else 500)).encode()  # many: Python reuses some
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tasks = from_json(content)
        truth = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert truth / 2 < sum(map(size_of, tasks)) < truth * 2


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_the_size_is_told_at_once(shape: dict[str, Any]) -> None:
    def seconds() -> float:
        started = time.perf_counter()
        size_of(shape)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(20)) < 0.001
