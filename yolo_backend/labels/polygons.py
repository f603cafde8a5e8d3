"""Upright boxes, and other convex polygons such as rotated rectangles: how much two of them overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Boxes = NDArray[np.float64]


def iou_matrix(first_xyxy: Boxes, second_xyxy: Boxes) -> Boxes:
    """IoU of each box of the first (n, 4) with each of the second (m, 4), as (n, m)."""
    first, second = first_xyxy.reshape(-1, 4), second_xyxy.reshape(-1, 4)
    shared = shared_areas(first, second)
    first_areas, second_areas = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second))
    union = first_areas[:, None] + second_areas - shared
    ious: Boxes = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ious


def shared_areas(first_xyxy: Boxes, second_xyxy: Boxes) -> Boxes:
    """The area that each box of the first (n, 4) shares with each of the second (m, 4), as (n, m)."""
    ends = np.minimum(first_xyxy[:, None, 2:], second_xyxy[:, 2:])
    begins = np.maximum(first_xyxy[:, None, :2], second_xyxy[:, :2])
    areas: Boxes = np.clip(ends - begins, 0, None).prod(axis=-1)
    return areas


def polygon_iou(first: Sequence[Point], second: Sequence[Point]) -> float:
    """Intersection over union of two convex polygons, whose corners are given clockwise, as the image shows them."""
    shared = area_within(_clipped(list(first), list(second)))
    return shared / max(area_within(first) + area_within(second) - shared, 1e-9)


def _clipped(corners: list[Point], by: list[Point]) -> list[Point]:
    """What one convex polygon has in common with another, cut along each of the other's sides.

    OpenCV has two functions for it, which say 0 or a third for some pairs that are nearly the same.
    """
    for (x1, y1), (x2, y2) in zip(by, by[1:] + by[:1], strict=True):
        depths = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in corners]  # inside is positive
        kept: list[Point] = []
        for index, ((x, y), depth) in enumerate(zip(corners, depths, strict=True)):
            (last_x, last_y), last_depth = corners[index - 1], depths[index - 1]
            if (depth < 0) != (last_depth < 0):
                part = last_depth / (last_depth - depth)
                kept.append((last_x + part * (x - last_x), last_y + part * (y - last_y)))
            if depth >= 0:
                kept.append((x, y))
        corners = kept
    return corners


def area_within(corners: Sequence[Point]) -> float:
    """The area of a shape without crossings, in pixels; 0 of no corners."""
    following = [*corners[1:], *corners[:1]]
    return abs(sum(x * y2 - x2 * y for (x, y), (x2, y2) in zip(corners, following, strict=True))) / 2
