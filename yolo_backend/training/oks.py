"""How alike key points are: object key point similarity (OKS), as Ultralytics' validator counts it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# How exactly people place each of COCO's points, as a part of a person's size: half of COCO's own numbers.
_OF_A_PERSON: Floats = (
    np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], np.float64) / 1000
)
_AREA_SHARE = 0.53  # of a box that a thing fills
_NOTHING = 1e-7  # so that nothing is divided by zero


def similarities(found_xy: Floats, drawn_xy: Floats, areas_px: Floats) -> Floats:
    """The OKS of each found thing with each drawn one, (found, drawn): 1 if all points lie on each other.

    `found_xy` (found, points, 2), `drawn_xy` (drawn, points, 2) with NaN for a point that nobody drew, which doesn't
    count, and `areas_px` (drawn,) of their boxes. A found point that is NaN is as far away as can be.
    """
    squares = ((found_xy[:, None] - drawn_xy) ** 2).sum(axis=-1)
    alike = np.nan_to_num(np.exp(-squares / _scales(drawn_xy.shape[1], areas_px)), nan=0.0)
    are_drawn = ~np.isnan(drawn_xy).any(axis=-1)
    result: Floats = (alike * are_drawn).sum(axis=-1) / (are_drawn.sum(axis=-1) + _NOTHING)
    return result


def of_each_point(found_xy: Floats, drawn_xy: Floats, area_px: float) -> Floats:
    """How alike each found point of a thing and each drawn one are, (found points, drawn points), of the same numbers:
    `similarities` is the mean of the diagonal, over the points that are drawn.
    """
    squares = ((found_xy[:, None] - drawn_xy) ** 2).sum(axis=-1)
    scales = _scales(len(drawn_xy), np.array([area_px]))
    alike: Floats = np.nan_to_num(np.exp(-squares / scales.T), nan=0.0)
    return alike


def _scales(points: int, areas_px: Floats) -> Floats:
    """The squared distance over which a point loses most of its likeness: (areas, points)."""
    sigmas = _OF_A_PERSON if points == len(_OF_A_PERSON) else np.full(points, 1 / max(points, 1))
    scales: Floats = (2 * sigmas) ** 2 * (_AREA_SHARE * areas_px[:, None] + _NOTHING) * 2
    return scales


def with_points(points_xy: Floats, count: int) -> Floats:
    """So many points of each: the first, and NaN for those beyond."""
    same = np.full((len(points_xy), count, 2), np.nan)
    first = points_xy[:, :count]
    same[:, : first.shape[1]] = first
    return same
