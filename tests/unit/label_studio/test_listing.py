"""Tasks as rows: the image that is shown, and the prediction that counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.harness.http_server import StartServer, reply
from yolo_backend.label_studio.listing import TaskRow, task_rows
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.selection import Selection
from yolo_backend.label_studio.studio import Studio

LEGACY = "0123456789abcdef0123456789abcdef01234567"
CONFIG = """<View><Image name="image" value="$photo"/><Image name="other" value="$other"/>
<RectangleLabels name="label" toName="image"><Label value="car"/></RectangleLabels>
<RectangleLabels name="label2" toName="other"><Label value="car"/></RectangleLabels></View>"""


def rows(serve: StartServer, task: dict[str, Any], selection: Selection, config: str = CONFIG) -> list[TaskRow]:
    shown = {"id": 5, "total_predictions": 0, "total_annotations": 1, "created_at": "2026-11-22T10:00:00Z", **task}
    server = serve(reply(json.dumps({"tasks": [shown]}).encode()))
    return list(task_rows(Project(Studio(server.url, LEGACY), 7, "Cells", config), selection))


@pytest.mark.parametrize(
    ("data", "config", "expected"),
    [
        ({"note": "x", "photo": "https://a.test/1.jpg?key=secret"}, CONFIG, "https://a.test/1.jpg?..."),
        ({"other": "/data/upload/1/2.jpg"}, CONFIG, "/data/upload/1/2.jpg"),
        ({"photo": ["s3://b/1.jpg", "s3://b/2.jpg", "s3://b/3.jpg"]}, CONFIG, "s3://b/1.jpg and 2 more"),
        ({"photo": ["s3://b/1.jpg"]}, CONFIG, "s3://b/1.jpg"),
        ({"photo": []}, CONFIG, ""),
        ({"photo": "data:image/png;base64,AAAA"}, CONFIG, "data: address of 26 characters"),
        ({"number": 3, "text": "/a.txt"}, "<View><Text name='text' value='$text'/></View>", "/a.txt"),
        ({"number": 3}, "<View/>", ""),
        (
            {"a": "/x.jpg", "photo": {"url": ["s3://b/1.jpg"]}},
            CONFIG.replace("$photo", "$photo.url[0]"),
            "s3://b/1.jpg",
        ),
        ({"photo": "1.jpg"}, CONFIG.replace("$photo", "https://a.test/$photo"), "https://a.test/1.jpg"),
        ({}, CONFIG, ""),
        (None, CONFIG, ""),
    ],
)
def test_the_image_that_is_shown(data: Any, config: str, expected: str, serve: StartServer) -> None:
    (row,) = rows(serve, {"data": data}, Selection(), config)
    assert row.image == expected


@pytest.mark.parametrize(
    ("selection", "version", "score"),
    [(Selection(), "b", 0.4), (Selection(model_version="a"), "a", 0.9), (Selection(model_version="c"), None, None)],
)
def test_the_prediction_that_counts(
    selection: Selection, version: str | None, score: float | None, serve: StartServer
) -> None:
    predictions = [{"id": 1, "model_version": "a", "score": 0.9}, {"id": 2, "model_version": "b", "score": 0.4}]
    task = {"data": {"photo": "/a.jpg"}, "predictions": predictions, "total_predictions": 2}
    assert rows(serve, task, selection) == [TaskRow(5, "/a.jpg", 2, version, score, 1, "2026-11-22T10:00:00Z", "a.jpg")]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("/data/upload/3/523e3ed0-BloodImage_00350.jpg", "BloodImage_00350.jpg"),
        ("/label-studio/data/upload/3/523e3ed0-a%20b.jpg", "a b.jpg"),
        ("/data/local-files/?d=shelf/row%202/9.jpg", "9.jpg"),
        ("https://a.test/photos/1.jpg?X-Amz-Signature=secret", "1.jpg"),
        ("s3://bucket/day 1/7.png", "7.png"),
        (["s3://b/1.jpg", "s3://b/2.jpg"], "1.jpg and 1 more"),
        ("data:image/png;base64,AAAA", "data: address of 26 characters"),
        ("https://a.test/", "https://a.test/"),
        ("http://[broken/1.jpg", "a malformed address"),
        (7, "a number"),
        ([7, "1.jpg"], "a number and 1 more"),
    ],
)
def test_the_name_of_the_file(image: Any, expected: str, serve: StartServer) -> None:
    (row,) = rows(serve, {"data": {"photo": image}}, Selection())
    assert row.file == expected
