"""A Label Studio with one project, whose tasks are scenes that somebody has labelled."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from tests.harness.http_server import reply
from yolo_backend.demo.scenes import CLASS_NAMES, draw_scene

PROJECT = 7
TOKEN = "0123456789abcdef0123456789abcdef01234567"
CREATED_AT = "2025-01-02T03:04:05.678900Z"
LABELS = ("Mutter", "Schraube", "Scheibe")
"""That no weights know; in the order of the scenes' classes."""


def config_of(labels: tuple[str, ...] = LABELS, thresholds: Mapping[str, float] | None = None) -> str:
    own = {label: f' model_score_threshold="{threshold}"' for label, threshold in (thresholds or {}).items()}
    tags = "".join(f'<Label value="{label}"{own.get(label, "")}/>' for label in labels)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image">{tags}</RectangleLabels></View>'
    )


@dataclass
class LabelStudio:
    """Answers as Label Studio does; `away` makes every call fail. `thresholds` are the labeling config's own.

    `labels` are those of the scenes' classes: people drew the boxes of those that are in `drawn`, and `config_labels`
    are in the labeling config, in this order. None is all. Of the last `unsubmitted` scenes the boxes are predictions.
    """

    scenes: int
    labels: tuple[str, ...] = LABELS
    drawn: Collection[str] | None = None
    config_labels: tuple[str, ...] | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    unsubmitted: int = 0
    away: bool = False
    asked: list[str] = field(default_factory=list)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        self.asked.append(address.path)
        if self.away:
            reply(b"", 502)(handler)
        elif address.path.startswith("/data/upload/"):
            reply(self.picture(int(address.path.rpartition("-")[2].removesuffix(".jpg"))))(handler)
        else:
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            reply(json.dumps(self.answer(address.path, query)).encode())(handler)

    def answer(self, path: str, query: dict[str, str]) -> Any:
        if path == f"/api/projects/{PROJECT}/":
            return {
                "id": PROJECT,
                "title": "Nuts",
                "label_config": self.label_config(),
                "created_at": CREATED_AT,
            }
        if path == "/api/tasks/":
            return self.tasks(query)
        return {}

    def tasks(self, query: dict[str, str]) -> Any:
        selection = json.loads(query.get("query", "{}"))
        after = [
            int(item["value"])
            for item in selection.get("filters", {}).get("items", [])
            if item["filter"] == "filter:tasks:id" and item["operator"] == "greater"
        ]
        wanted = {item["filter"]: item for item in selection.get("filters", {}).get("items", [])}
        ids = [
            number
            for number in range(1, self.scenes + 1)
            if all(number > each for each in after) and self._passes(number, wanted)
        ]
        shown = ids[: int(query["page_size"])]
        return {"tasks": [self.task(number) for number in shown], "total": len(ids)}

    def _passes(self, number: int, wanted: Mapping[str, Any]) -> bool:
        """Whether a task has as many annotations and predictions as filters want, none (equal) or some (greater)."""
        is_submitted = number <= self.scenes - self.unsubmitted
        has = {"filter:tasks:total_annotations": is_submitted, "filter:tasks:total_predictions": not is_submitted}
        return all(has[key] is (item["operator"] == "greater") for key, item in wanted.items() if key in has)

    def label_config(self) -> str:
        return config_of(self.config_labels or self.labels, self.thresholds)

    def picture(self, number: int) -> bytes:
        return _scene_of(number)[0]

    def regions(self, number: int) -> list[dict[str, Any]]:
        _, size_wh, boxes, class_ids = _scene_of(number)
        drawn = self.labels if self.drawn is None else self.drawn
        return [
            _region(label, box, size_wh)
            for class_id, box in zip(class_ids, boxes, strict=True)
            if (label := self.labels[class_id]) in drawn
        ]

    def task(self, number: int) -> dict[str, Any]:
        annotation = {
            "id": 1000 + number,
            "was_cancelled": False,
            "ground_truth": False,
            "updated_at": f"2025-02-03T04:05:{number % 60:02d}.000000Z",
            "result": self.regions(number),
        }
        is_submitted = number <= self.scenes - self.unsubmitted
        prediction = {"id": 2000 + number, "model_version": "labels (imported)", "result": annotation["result"]}
        return {
            "id": number,
            "data": {"image": f"/data/upload/{PROJECT}/01234567-{number}.jpg"},
            "annotations": [annotation] if is_submitted else [],
            "predictions": [] if is_submitted else [prediction],
            "drafts": [],
        }


def _region(label: str, box: list[float], size_wh: tuple[int, int]) -> dict[str, Any]:
    (left, top, right, bottom), (width, height) = box, size_wh
    return {
        "id": f"{label}{left:g}{top:g}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "origin": "manual",
        "value": {
            "x": 100 * left / width,
            "y": 100 * top / height,
            "width": 100 * (right - left) / width,
            "height": 100 * (bottom - top) / height,
            "rotation": 0,
            "rectanglelabels": [label],
        },
    }


@cache
def _scene_of(number: int) -> tuple[bytes, tuple[int, int], list[list[float]], tuple[int, ...]]:
    scene = draw_scene(50_000 + number)
    assert len(CLASS_NAMES) == len(LABELS)
    content = io.BytesIO()
    Image.fromarray(scene.image).save(content, "JPEG", quality=90)
    return content.getvalue(), scene.size_wh, scene.boxes_xyxy.tolist(), scene.class_ids
