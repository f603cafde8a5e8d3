"""How much masks that were found overlap those that people drew."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.masks import Mask
from yolo_backend.labels.outlines import Points, filled
from yolo_backend.labels.polygons import shared_areas

Floats = NDArray[np.float64]
Outlines = Sequence[Points]

_LONGER_PX = 640


def grid_of(size_wh: tuple[int, int]) -> tuple[int, int]:
    """The size in which masks of an image of this size are compared: its own, or a smaller one of the same shape.

    It is finer than what masks are made of, a quarter of the model's image size, and bounds memory and time.
    """
    scale = min(1.0, _LONGER_PX / max(size_wh))
    return max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale))


def mask_ious(
    found: Sequence[Mask],
    drawn: Sequence[Outlines],
    size_wh: tuple[int, int],
    least: float,
    wanted: NDArray[np.bool_] | None = None,
) -> Floats:
    """IoU of each mask with what is within each of these outlines, (found, drawn), in a picture of this size.

    It is 0 where a pair isn't `wanted`, and where it is certain without counting pixels that it is below `least`.
    """
    truths = [filled(outlines, size_wh) for outlines in drawn]
    areas, true_areas = (np.array([mask.area_px for mask in masks], np.float64) for masks in (found, truths))
    most_shared = np.minimum(
        shared_areas(_windows(found), _windows(truths)), np.minimum(areas[:, None], true_areas)
    ).reshape(len(found), len(drawn))
    possible = (most_shared > 0) & (most_shared >= least * (areas[:, None] + true_areas - most_shared))
    if wanted is not None:
        possible &= wanted
    ious = np.zeros(possible.shape)
    of_found, of_drawn = (
        cache(lambda number, masks=masks: _Pixels(masks[number], size_wh)) for masks in (found, truths)
    )
    for index, number in np.argwhere(possible).tolist():
        shared = of_drawn(number).shared_with(of_found(index))
        ious[index, number] = shared / (areas[index] + true_areas[number] - shared)
    return ious


def _windows(masks: Sequence[Mask]) -> Floats:
    windows = np.array([mask.window_xywh for mask in masks], np.float64).reshape(-1, 4)
    return np.concatenate([windows[:, :2], windows[:, :2] + windows[:, 2:]], axis=1)


class _Pixels:
    """The pixels of a mask in a picture of this size, as spans from one number to another."""

    def __init__(self, mask: Mask, size_wh: tuple[int, int]) -> None:
        self._starts, self._ends = mask.spans(size_wh)
        self._before = np.concatenate([[0], np.cumsum(self._ends - self._starts)])

    def shared_with(self, other: _Pixels) -> int:
        """How many pixels both have."""
        return int((self._up_to(other._ends) - self._up_to(other._starts)).sum())

    def _up_to(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the pixels come before each of these."""
        begun = np.searchsorted(self._starts, places, side="right")
        last = (begun - 1).clip(min=0)
        in_last = np.where(begun > 0, np.minimum(places, self._ends[last]) - self._starts[last], 0)
        count: NDArray[np.int64] = self._before[last] + in_last
        return count
