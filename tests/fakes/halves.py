"""A view that we don't have: the left half of an image and the right half, each larger than the whole would be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.detections import detect
from yolo_backend.detection import views
from yolo_backend.detection.detections import Detections, WeightsInfo, joined
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.views import AreaXyxy


class Halves:
    """Shows both halves to all weights that find boxes."""

    name = "halves"

    def takes(self, weights: WeightsInfo) -> bool:
        return weights.kind == "detect"

    def enough_px(self, weights: WeightsInfo) -> int | None:
        return 4 * max(weights.image_size)

    def areas(self, size_wh: tuple[int, int]) -> Sequence[AreaXyxy]:
        width, height = size_wh
        return [(0, 0, width // 2, height), (width // 2, 0, width, height)]

    def merge(self, found: Sequence[Detections], areas: Sequence[AreaXyxy]) -> Detections:
        return joined(found)


def serve_halves(patch: pytest.MonkeyPatch) -> None:
    """Show images so until `patch` is undone: the one entry that a view takes."""
    patch.setattr(views, "VIEWS", (Halves(), *views.VIEWS))


def boxes_in_halves(engine: Engine, image: NDArray[np.uint8]) -> list[tuple[str, list[float]]]:
    """What the weights find in each half by itself, put side by side, best score first.

    Each box is its label, and x, y, width, height and score: in percent.
    """
    height, width, _ = image.shape
    expected = []
    for left in (0, width // 2):
        (found,) = detect(engine, [np.ascontiguousarray(image[:, left : left + width // 2])], 0.25)
        for box, score, number in zip(found.boxes, found.scores, found.class_ids, strict=True):
            x1, y1, x2, y2 = np.clip(
                (box + np.array([left, 0, left, 0])) / [width, height, width, height] * 100, 0, 100
            )
            expected.append((engine.info.class_names[number], [x1, y1, x2 - x1, y2 - y1, 100 * score]))
    return sorted(expected, key=lambda box: -box[1][4])
