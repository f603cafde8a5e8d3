"""Detections to Label Studio regions: percentages of the upright image, clipped so that they are always valid."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections
from yolo_backend.labels.labeling_config import Control, LabelMap

Region = dict[str, Any]
Place = dict[str, float]


def make_regions(
    detections: Detections, control: Control, label_map: LabelMap, size_wh: tuple[int, int], item_index: int | None
) -> list[Region]:
    """The regions of one control on one image, best score first; `item_index` is the page of a `valueList`.

    Of a `<Labels>` with a `<Rectangle>` each box is two, of one id: its place, and the same with its label.
    """
    scores, class_ids = detections.scores.tolist(), detections.class_ids.tolist()
    # Strictly above, as Ultralytics filters.
    wanted = [
        index
        for index, (score, class_id) in enumerate(zip(scores, class_ids, strict=True))
        if class_id in label_map.label_of_class and score > label_map.threshold_of_class[class_id]
    ]
    places = (_rotated_places if detections.rotated else _upright_places)(detections.boxes[wanted], size_wh)
    regions: list[Region] = []
    for place, index, id_ in zip(places, wanted, _new_ids(len(wanted)), strict=True):
        if place is not None:
            common = {
                "id": id_,
                "to_name": control.to_name,
                "original_width": size_wh[0],
                "original_height": size_wh[1],
                "image_rotation": 0,
                "score": scores[index],
                **({} if item_index is None else {"item_index": item_index}),
            }
            label = label_map.label_of_class[class_ids[index]]
            regions += [{**common, **part} for part in _parts(control, place, label)]
    return regions


def region_label(region: Region) -> str | None:
    """The first label of a region, None of one that is a place only."""
    labels = (region.get("value") or {}).get(region.get("type"))
    return str(labels[0]) if isinstance(labels, list) and labels else None


def _parts(control: Control, place: Place, label: str) -> list[dict[str, Any]]:
    """A labelled rectangle; beside a `<Rectangle>`, it is two of one id, as the page itself stores it."""
    if control.rectangle_name is None:
        value = {**place, "rectanglelabels": [label]}
        return [{"from_name": control.from_name, "type": "rectanglelabels", "value": value}]
    return [
        {"from_name": control.rectangle_name, "type": "rectangle", "value": dict(place)},
        {"from_name": control.from_name, "type": "labels", "value": {**place, "labels": [label]}},
    ]


def _new_ids(count: int) -> list[str]:
    digits = os.urandom(5 * count).hex()
    return [digits[start : start + 10] for start in range(0, len(digits), 10)]


def count_boxes(regions: Sequence[Region]) -> int:
    """How many boxes these regions are."""
    return len({region.get("id", number) for number, region in enumerate(regions)})


def task_score(regions: Sequence[Region]) -> float:
    """The mean of the scores, 0.0 without regions."""
    return sum(region["score"] for region in regions) / len(regions) if regions else 0.0


def _upright_places(boxes_xyxy: NDArray[np.float32], size_wh: tuple[int, int]) -> list[Place | None]:
    percent = np.clip(boxes_xyxy / np.array([*size_wh, *size_wh], np.float64) * 100, 0, 100)
    percent[~np.isfinite(boxes_xyxy).all(axis=1)] = 0
    return [
        {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
        if right > left and bottom > top
        else None
        for left, top, right, bottom in percent.tolist()
    ]


def _rotated_places(boxes_xywhr: NDArray[np.float32], size_wh: tuple[int, int]) -> list[Place | None]:
    return [_rotated_place(box, size_wh) for box in boxes_xywhr]


def _rotated_place(box_xywhr: NDArray[np.float32], size_wh: tuple[int, int]) -> Place | None:
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
    around_xyxy = np.array([[min(xs), min(ys), max(xs), max(ys)]], np.float32)
    return _upright_places(around_xyxy, size_wh)[0]
