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
Box = tuple[float, float, float, float, float]
"""Center x and y, width and height in pixels, and the rotation in clockwise radians: xywhr."""


def places_of(detections: Detections, indices: Sequence[int], size_wh: tuple[int, int]) -> list[Place | None]:
    """The places of these detections, clipped so that they are always valid; None for one outside of the image."""
    boxes = detections.boxes[indices]
    return _rotated_places(boxes, size_wh) if detections.rotated else _upright_places(boxes, size_wh)


def visible_corners(
    detections: Detections, indices: Sequence[int], size_wh: tuple[int, int]
) -> list[list[tuple[float, float]]]:
    """The corners of what of these boxes is on the image, in its pixels; none of one outside of it."""
    if not detections.rotated:
        return [
            corners_of(place, size_wh) if place else [] for place in _upright_places(detections.boxes[indices], size_wh)
        ]
    boxes = [_box_of(numbers) for numbers in detections.boxes[indices].tolist()]
    corners = [clip_to_image(corners_of_box(box), size_wh) if box else [] for box in boxes]
    return [list(dict.fromkeys(each)) if len(set(each)) >= 3 else [] for each in corners]


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


def are_numbers(value: Mapping[str, Any], *keys: str) -> bool:
    """Returns True if a region's value has a finite number under each of these keys; a region may be anybody's."""
    return all(is_number(value.get(key)) for key in keys)


def is_number(said: Any) -> bool:
    """Returns True for a finite number."""
    try:
        return isinstance(said, int | float) and math.isfinite(said)
    except OverflowError:  # an integer with hundreds of digits
        return False


def is_place(value: Mapping[str, Any], *keys: str) -> bool:
    """Returns True if a region's value has finite numbers under these keys, and perhaps as its rotation."""
    return are_numbers({**value, "rotation": value.get("rotation") or 0}, *keys, "rotation")


def box_of_place(place: Mapping[str, Any], size_wh: tuple[int, int]) -> Box | None:
    """A place as a box in pixels, the way back of `places_of`; None where it has no numbers, or no area."""
    if not is_place(place, "x", "y", "width", "height"):
        return None
    width, height, degrees = place["width"], place["height"], place.get("rotation") or 0
    if width <= 0 or height <= 0:
        return None
    top_left, _, bottom_right, _ = corners_of(place, size_wh)
    center_x, center_y = ((one + other) / 2 for one, other in zip(top_left, bottom_right, strict=True))
    return center_x, center_y, width / 100 * size_wh[0], height / 100 * size_wh[1], math.radians(degrees)


def corners_of_box(box_xywhr: Box) -> list[tuple[float, float]]:
    """A box's corners, clockwise from the one that is its top left where it isn't turned."""
    center_x, center_y, width, height, radians = box_xywhr
    cos, sin = math.cos(radians), math.sin(radians)
    sides = [(-width, -height), (width, -height), (width, height), (-width, height)]
    return [(center_x + (x * cos - y * sin) / 2, center_y + (x * sin + y * cos) / 2) for x, y in sides]


def clip_to_image(corners: Sequence[tuple[float, float]], size_wh: tuple[int, int]) -> list[tuple[float, float]]:
    """The corners of what of a convex shape is on the image, up to eight of a rectangle's; none where it is beside."""
    kept = list(corners)
    for axis, limit, direction in ((0, 0, 1), (0, size_wh[0], -1), (1, 0, 1), (1, size_wh[1], -1)):
        clipped = []
        for one, other in zip(kept, kept[1:] + kept[:1], strict=True):
            inside, next_inside = ((limit - corner[axis]) * direction <= 0 for corner in (one, other))
            if inside:
                clipped.append(one)
            if inside != next_inside:
                share = (limit - one[axis]) / (other[axis] - one[axis])
                crossing = [start + share * (end - start) for start, end in zip(one, other, strict=True)]
                crossing[axis] = limit
                clipped.append((crossing[0], crossing[1]))
        kept = clipped
    return kept


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


def _box_of(numbers: Sequence[float]) -> Box | None:
    """The numbers of a rotated box, if they are finite and it has an area."""
    if not all(map(math.isfinite, numbers)) or numbers[2] <= 0 or numbers[3] <= 0:
        return None
    center_x, center_y, width, height, radians = numbers
    return center_x, center_y, width, height, radians


def _rotated_place(box_xywhr: NDArray[np.float32], size_wh: tuple[int, int]) -> Place | None:
    """Label Studio turns a rectangle clockwise around its own top left corner, which must lie on the image.

    A rectangle has four such readings, one for each corner. If none fits, the upright box around it is taken.
    """
    box = _box_of(box_xywhr.tolist())
    if box is None:
        return None
    center_x, center_y, box_width, box_height, radians = box
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
