"""Convex polygons, such as rotated rectangles: how much two of them overlap."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]


def polygon_iou(first: Sequence[Point], second: Sequence[Point]) -> float:
    """Intersection over union of two convex polygons, whose corners are given clockwise, as the image shows them."""
    shared = _area(_clipped(list(first), list(second)))
    return shared / max(_area(first) + _area(second) - shared, 1e-9)


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


def _area(corners: Sequence[Point]) -> float:
    following = [*corners[1:], *corners[:1]]
    return abs(sum(x * y2 - x2 * y for (x, y), (x2, y2) in zip(corners, following, strict=True))) / 2
