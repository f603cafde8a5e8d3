"""Whether a model tells key points apart: what it finds is held against things whose points are shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from yolo_backend.labels.polygons import iou_matrix
from yolo_backend.training.found import FoundBoxes
from yolo_backend.training.matching import IOUS, Floats, TrueBoxes
from yolo_backend.training.oks import of_each_point, with_points
from yolo_backend.training.scores import RESAMPLES
from yolo_backend.training.thresholds import MIN_BOXES


@dataclass(frozen=True)
class ShuffledPoints:
    """In how many of the shuffles, in which the points of each thing change places, the mean OKS of the `things` is at
    least as good as with the points as they are.
    """

    things: int
    as_good: int


def shuffle_points(
    truths: Sequence[TrueBoxes], found: Sequence[FoundBoxes], generator: np.random.Generator
) -> ShuffledPoints | None:
    """A test by permutation, which OKS alone is none of: its tolerance is wide where things have few points, so points
    that all lie in the middle of their thing may be hits. None if too few things with several points were found.
    """
    as_they_are = 0.0
    shuffled = np.zeros(RESAMPLES)
    is_a_shuffle = np.zeros(RESAMPLES, np.bool_)  # of two points of few things, some would stay as they are
    things = 0
    for alike in _things(truths, found):
        points = np.arange(len(alike))
        orders = generator.permuted(np.tile(points, (RESAMPLES, 1)), axis=1)
        as_they_are += float(alike.diagonal().mean())
        shuffled += alike[points, orders].mean(axis=1)
        is_a_shuffle |= (orders != points).any(axis=1)
        things += 1
    if things < MIN_BOXES:
        return None
    return ShuffledPoints(things, int((is_a_shuffle & (shuffled >= as_they_are - 1e-9)).sum()))


def _things(truths: Sequence[TrueBoxes], found: Sequence[FoundBoxes]) -> Iterator[Floats]:
    """For each thing with several drawn points that was found, how alike each found and each drawn point are."""
    for truth, those in zip(truths, found, strict=True):
        if those.points_xy is None or not truth.points_xy.size or not len(those.boxes):
            continue
        drawn_xy = with_points(truth.points_xy, those.points_xy.shape[1])
        overlaps = iou_matrix(those.boxes, truth.boxes_xyxy)
        areas_px = (truth.boxes_xyxy[:, 2:] - truth.boxes_xyxy[:, :2]).prod(axis=1)
        for number, best in enumerate(overlaps.argmax(axis=0)):
            drawn = np.flatnonzero(~np.isnan(drawn_xy[number]).any(axis=-1))
            if len(drawn) > 1 and overlaps[best, number] >= IOUS[0]:
                alike = of_each_point(those.points_xy[best], drawn_xy[number], float(areas_px[number]))
                yield alike[np.ix_(drawn, drawn)]
