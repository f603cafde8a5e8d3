"""Detections to Label Studio regions: percentages of the upright image, clipped so that they are always valid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections
from yolo_backend.labeling import Control, LabelMap

Region = dict[str, Any]


def make_regions(
    detections: Detections, control: Control, label_map: LabelMap, size_wh: tuple[int, int], item_index: int | None
) -> list[Region]:
    """The regions of one control on one image, best score first; `item_index` is the page of a `valueList`."""
    regions = []
    for box, score, class_id in zip(
        detections.boxes, detections.scores.tolist(), detections.class_ids.tolist(), strict=True
    ):
        label = label_map.label_of_class.get(class_id)
        # Strictly above, as Ultralytics filters.
        if label is None or not score > label_map.threshold_of_class[class_id]:
            continue
        place = _rotated_place(box, size_wh) if detections.rotated else _upright_place(box, size_wh)
        if place is None:
            continue
        region: Region = {
            "id": uuid4().hex[:10],
            "from_name": control.from_name,
            "to_name": control.to_name,
            "type": "rectanglelabels",
            "original_width": size_wh[0],
            "original_height": size_wh[1],
            "image_rotation": 0,
            "value": {**place, "rectanglelabels": [label]},
            "score": score,
        }
        if item_index is not None:
            region["item_index"] = item_index
        regions.append(region)
    return regions


def task_score(regions: Sequence[Region]) -> float:
    """The mean of the scores, 0.0 without regions."""
    return float(np.mean([region["score"] for region in regions])) if regions else 0.0


def _upright_place(box_xyxy: NDArray[np.float32], size_wh: tuple[int, int]) -> dict[str, float] | None:
    if not np.isfinite(box_xyxy).all():
        return None
    width, height = size_wh
    left, right = (_percent(x, width) for x in (box_xyxy[0], box_xyxy[2]))
    top, bottom = (_percent(y, height) for y in (box_xyxy[1], box_xyxy[3]))
    if right <= left or bottom <= top:
        return None
    return {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}


def _rotated_place(box_xywhr: NDArray[np.float32], size_wh: tuple[int, int]) -> dict[str, float] | None:
    """Label Studio turns a rectangle clockwise around its own top left corner, which must lie on the image.

    A rectangle has four such readings, one for each corner. Where none fits, the upright box around it serves.
    """
    if not np.isfinite(box_xywhr).all():
        return None
    center_x, center_y, box_width, box_height, radians = (float(number) for number in box_xywhr)
    if box_width <= 0 or box_height <= 0:
        return None
    width, height = size_wh
    corners = []
    for quarter in range(4):
        angle = radians + quarter * math.pi / 2
        side_x, side_y = (box_width, box_height) if quarter % 2 == 0 else (box_height, box_width)
        cos, sin = math.cos(angle), math.sin(angle)
        corner_x = center_x - (side_x * cos - side_y * sin) / 2
        corner_y = center_y - (side_x * sin + side_y * cos) / 2
        corners.append((corner_x, corner_y))
        place = {
            "x": corner_x / width * 100,
            "y": corner_y / height * 100,
            "width": side_x / width * 100,
            "height": side_y / height * 100,
            "rotation": math.degrees(angle) % 360,
        }
        if all(0 <= place[key] <= 100 for key in ("x", "y", "width", "height")):
            return place
    xs, ys = zip(*corners, strict=True)
    return _upright_place(np.array([min(xs), min(ys), max(xs), max(ys)], np.float32), size_wh)


def _percent(pixels: float, size: int) -> float:
    return min(max(float(pixels) / size * 100, 0.0), 100.0)
