"""Where rectangles are: in pixels of the upright image, and as Label Studio has them, in percent of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections

Place = dict[str, float]
"""x, y, width and height in percent of the image, and the rotation in degrees."""


def places_of(detections: Detections, indices: Sequence[int], size_wh: tuple[int, int]) -> list[Place | None]:
    """The places of these detections, clipped so that they are always valid; None for one outside of the image."""
    boxes = detections.boxes[indices]
    return _rotated_places(boxes, size_wh) if detections.rotated else _upright_places(boxes, size_wh)


def corners_of(place: Mapping[str, Any], size_wh: tuple[int, int]) -> list[tuple[float, float]]:
    """A place's corners in pixels. Label Studio turns it clockwise around its top left one."""
    picture_width, picture_height = size_wh
    left, top = place["x"] / 100 * picture_width, place["y"] / 100 * picture_height
    width, height = place["width"] / 100 * picture_width, place["height"] / 100 * picture_height
    radians = math.radians(place.get("rotation") or 0)
    across_x, across_y = width * math.cos(radians), width * math.sin(radians)
    down_x, down_y = -height * math.sin(radians), height * math.cos(radians)
    return [
        (left, top),
        (left + across_x, top + across_y),
        (left + across_x + down_x, top + across_y + down_y),
        (left + down_x, top + down_y),
    ]


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

    A rectangle has four such readings, one for each corner. If none fits, the upright box around it is taken.
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
