"""Tasks with what people submitted, as Label Studio lists them, and the snapshots that are taken of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from tests.fakes.engine import FakeEngine, info_of
from tests.fakes.weights import fake_catalog
from tests.harness.http_server import RecordingServer, StartServer, reply
from tests.harness.pictures import encode
from tests.harness.turned_files import orientation, with_segments
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.studio import Studio
from yolo_backend.protocol import Task
from yolo_backend.serving.task import TaskFile, TaskPredictor
from yolo_backend.settings import load_settings
from yolo_backend.training.image_cache import ImageCache
from yolo_backend.training.labelled import Snapshot
from yolo_backend.training.snapshot import take_snapshot

TOKEN = "0" * 40
CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="car"/><Label value="cat"/></RectangleLabels></View>"""

Take = Callable[..., Snapshot]


def picture(number: int, size_wh: tuple[int, int] = (40, 20), orientation_: int = 1) -> str:
    """An image as a data: address; each number looks otherwise."""
    pixels = np.random.default_rng(number).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    content = encode(pixels, "JPEG", quality=95)
    if orientation_ > 1:
        content = with_segments(content, (0xE1, b"Exif\0\0" + orientation(orientation_)))
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def submitted(*regions: dict[str, Any], minute: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": 1000 + minute,
        "was_cancelled": False,
        "ground_truth": False,
        "updated_at": f"2026-11-01T10:{minute:02d}:00.000001Z",
        "result": list(regions),
        **more,
    }


def task(number: int, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": number, "data": {"image": picture(number), **data}, "annotations": list(annotations)}


class LabelStudio:
    """Lists tasks as the Data Manager does."""

    def __init__(self, tasks: list[dict[str, Any]]) -> None:
        self.tasks = tasks
        self.is_away = False

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        if self.is_away or address.path not in {"/api/tasks/", "/health"}:
            reply(b"", 502 if self.is_away else 404)(handler)
            return
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        filters = json.loads(query.get("query", "{}")).get("filters", {}).get("items", [])
        after = next((item["value"] for item in filters if item["filter"] == "filter:tasks:id"), 0)
        assert any(item["filter"] == "filter:tasks:total_annotations" for item in filters) or not filters
        found = [
            one
            for one in self.tasks
            if one["id"] > after and any(not each["was_cancelled"] for each in one["annotations"])
        ]
        page = found[: int(query.get("page_size", 1))]
        fields = set(query.get("include", "").split(","))
        if query.get("fields") == "all":  # what isn't named is left out of annotations, too
            page = [
                {"id": one["id"], "data": one["data"]}
                | {"annotations": [{name: each[name] for name in fields & each.keys()} for each in one["annotations"]]}
                for one in page
            ]
        reply(json.dumps({"tasks": page, "total": len(found)}).encode())(handler)


@contextmanager
def snapshots(serve: StartServer, folder: Path) -> Iterator[Take]:
    """Takes a snapshot of these tasks by the product's own loader."""
    with closing(fake_catalog(lambda name: FakeEngine(info_of(name)))) as catalog:

        def take(
            tasks: list[dict[str, Any]],
            config: str = CONFIG,
            group_field: str | None = None,
            told: Callable[[int, int], None] = lambda done, total: None,
            server: RecordingServer | None = None,
            kind: str = "detect",
        ) -> Snapshot:
            server = server or serve(LabelStudio(tasks))
            studio = Studio(server.url, TOKEN)
            loader = TaskPredictor(load_settings(model_name="fake.pt"), catalog.pool, 4)

            def load(task: Task, controls: Any) -> Iterator[TaskFile]:
                return loader.files(task, controls, studio, project="7")

            cache = ImageCache(folder / "images", 50)
            return take_snapshot(Project(studio, 7, "Cars", config), load, cache, group_field, told, kind=kind)

        yield take
