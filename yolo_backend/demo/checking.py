"""What the demo holds against what should be there: boxes that are known, Label Studio's judge, Ultralytics' own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from yolo_backend.demo.evaluate import Match, match_boxes, region_box_xyxy
from yolo_backend.demo.scenes import CLASS_NAMES, Scene
from yolo_backend.detection.naming import DEMO
from yolo_backend.detection.weights import find_weights

_MIN_PRECISION = _MIN_RECALL = 0.97
# The scenes have clumps of bolts, which Ultralytics' defaults answer with a second box here and there.
SCORE_THRESHOLD, IOU_THRESHOLD = 0.3, 0.5
Predictions = Mapping[str, dict[str, Any] | None]  # by the name of the scene's file
LABELS = tuple(name.capitalize() for name in CLASS_NAMES)


@dataclass(frozen=True)
class Shown:
    """A scene, its file, and the prediction that Label Studio stored for it, None without one."""

    scene: Scene
    path: Path
    prediction: dict[str, Any] | None

    @property
    def regions(self) -> list[dict[str, Any]]:
        return list(self.prediction["result"]) if self.prediction else []

    def as_drawn(self) -> tuple[str, Image.Image, list[dict[str, Any]]]:
        """Caption, picture and regions, for the contact sheet."""
        return f"{self.path.name}: {len(self.regions)} boxes", Image.fromarray(self.scene.image), self.regions

    @cached_property
    def match(self) -> Match:
        found = [region_box_xyxy(region) for region in self.regions]
        return match_boxes(
            np.array(found, np.float64).reshape(-1, 4),
            [region["value"]["rectanglelabels"][0] for region in self.regions],
            self.scene.boxes_xyxy,
            [LABELS[class_id] for class_id in self.scene.class_ids],
        )


def wait_for_predictions(
    read: Callable[[], Predictions], names: Collection[str], timeout_s: float, pause_s: float = 1.0
) -> Predictions:
    """What is stored for scenes of these names, when each has a prediction, or when the time is up."""
    ends_at = time.monotonic() + timeout_s
    while True:
        stored = read()
        if all(stored.get(name) is not None for name in names) or time.monotonic() >= ends_at:
            return stored
        time.sleep(pause_s)


def print_table(shown: list[Shown]) -> None:
    """Print what was found of each scene."""
    print(f"{'image':<14}{'size':>12}{'found':>7}{'there':>7}{'mean IoU':>10}{'score':>8}")
    for item in shown:
        width, height = item.scene.size_wh
        score = f"{item.prediction['score']:.3f}" if item.prediction else "none"
        match = item.match
        size = f"{width}x{height}"
        print(f"{item.path.name:<14}{size:>12}{match.found:>7}{match.there:>7}{match.mean_iou:>10.3f}{score:>8}")
    precision, recall = _precision_recall(shown)
    print(f"\nAt IoU 0.5: precision {precision:.3f}, recall {recall:.3f}")


def _precision_recall(shown: list[Shown]) -> tuple[float, float]:
    matches = [item.match for item in shown]
    right = sum(len(match.ious) for match in matches)
    found, there = sum(match.found for match in matches), sum(match.there for match in matches)
    return right / max(found, 1), right / max(there, 1)


def problems_of(shown: list[Shown], config: str) -> list[str]:
    """What isn't as it should be, a line each."""
    problems = [f"{item.path.name} has no prediction" for item in shown if item.prediction is None]
    precision, recall = _precision_recall(shown)
    if precision < _MIN_PRECISION or recall < _MIN_RECALL:
        problems.append(f"precision {precision:.3f} and recall {recall:.3f} should be at least {_MIN_PRECISION}")
    judge = LabelInterface(config)
    for item in shown:
        if item.prediction:
            stored = {key: item.prediction[key] for key in ("result", "score", "model_version")}
            errors = judge.validate_prediction(stored, return_errors=True)
            problems += [f"{item.path.name}: {error}" for error in errors]
    problems += _differences_from_ultralytics(shown)
    return problems


def _differences_from_ultralytics(shown: list[Shown]) -> list[str]:
    from ultralytics import YOLO  # noqa: PLC0415  takes seconds, which the demo without --check can do without

    model = YOLO(find_weights(DEMO, Path()))
    differences = []
    largest_px = 0.0
    for item in shown:
        boxes = model.predict(item.path, conf=SCORE_THRESHOLD, iou=IOU_THRESHOLD, verbose=False)[0].boxes
        own = sorted(zip(boxes.conf.tolist(), boxes.cls.tolist(), boxes.xyxy.tolist(), strict=True), reverse=True)
        ours = sorted(
            (
                (region["score"], LABELS.index(region["value"]["rectanglelabels"][0]), list(region_box_xyxy(region)))
                for region in item.regions
            ),
            reverse=True,
        )
        if len(own) != len(ours):
            differences.append(f"{item.path.name}: {len(ours)} boxes, Ultralytics finds {len(own)}")
            continue
        for (own_score, own_class, own_xyxy), (score, class_id, box_xyxy) in zip(own, ours, strict=True):
            off_px = float(np.abs(np.subtract(own_xyxy, box_xyxy)).max())
            largest_px = max(largest_px, off_px)
            if class_id != int(own_class) or abs(score - own_score) > 1e-3 or off_px > 0.05:
                differences.append(f"{item.path.name}: a box is {off_px:.3f} px off Ultralytics' own")
    print(f"Compared with Ultralytics' own predict on the same files: largest difference {largest_px:.4f} px")
    return differences
