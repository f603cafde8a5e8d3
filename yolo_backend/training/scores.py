"""Average precision and recall, on the images as they are and on thousands of resamples of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolo_backend.training.matching import IOUS, Floats, Matches

Weights = NDArray[np.uint16]
"""How often each image counts in each resample: (resamples, images)."""
Interval = tuple[float, float]

RESAMPLES = 2000
_AT_ONCE = 500_000  # numbers in one array
_RECALL_STEPS = 100  # the average precision is that of 101 recalls, as COCO's
_INTERVAL = (0.025, 0.975)


def as_they_are(images: int) -> Weights:
    """Each image once, as the only row."""
    return np.ones((1, images), np.uint16)


def resample(images: int, seed: int, resamples: int = RESAMPLES) -> Weights:
    """Each row draws as many images as there are, with replacement."""
    if images == 0:
        return np.zeros((resamples, 0), np.uint16)
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples).astype(np.uint16)


def average_precisions(matches: Matches, weights: Weights, ious: int = len(IOUS)) -> Floats:
    """The average precision of a label in each resample, at the first so many `IOUS`: (resamples, IoUs).

    It is NaN where a resample has no box of the label. It is Ultralytics' own, which is COCO's 101 recalls joined by
    lines; an image that counts twice is as if it were there twice.
    """
    at_once = max(1, _AT_ONCE // max(1, len(matches.scores)))
    starts = range(0, len(weights), at_once)
    parts = [_average_precisions(matches, weights[start : start + at_once], ious) for start in starts]
    return np.concatenate(parts) if parts else np.zeros((0, ious))


def _average_precisions(matches: Matches, weights: Weights, ious: int) -> Floats:
    weight_of_box = weights[:, matches.image_numbers]
    found = weight_of_box.cumsum(axis=1, dtype=np.int32)
    there = weights.astype(np.int64) @ matches.boxes_of_image
    result = np.zeros((len(weights), ious))
    for number in range(ious):
        at = np.flatnonzero(matches.hits[:, number])
        if len(at) == 0:
            continue
        hits = weight_of_box[:, at].cumsum(axis=1, dtype=np.int32)
        # Between two hits, precision falls; so the best that is still to come is that of a hit.
        precisions = hits / np.maximum(found[:, at], 1)
        best = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
        # How many of the recalls 0.00, 0.01 ... are below that of each hit; the small number is for rounding.
        reached = np.ceil(hits * (_RECALL_STEPS / np.maximum(there, 1))[:, None] - 1e-9)
        steps = np.diff(reached, axis=1, prepend=0.0)
        # A sum of trapezoids: the first recall counts half, the last has no precision.
        result[:, number] = ((best * steps).sum(axis=1) - best[:, 0] / 2) / _RECALL_STEPS
    result[there == 0] = np.nan
    return result


@dataclass(frozen=True)
class Resampled:
    """A number as it is, and in each resample."""

    value: float
    resampled: Floats

    @property
    def interval(self) -> Interval:
        """Where it lies in 95 % of the resamples."""
        known = self.resampled[~np.isnan(self.resampled)]
        low, high = np.quantile(known, _INTERVAL).tolist() if len(known) else (np.nan, np.nan)
        return low, high

    def __sub__(self, other: Resampled) -> Resampled:
        return Resampled(self.value - other.value, self.resampled - other.resampled)

    def share_below(self, limit: float) -> float:
        """In what share of the resamples it is below the limit."""
        return float((self.resampled < limit).sum() / max(len(self.resampled), 1))


@dataclass(frozen=True)
class Scores:
    """A model's scores on a number of images, and on resamples of them."""

    ap50: Mapping[str, Resampled]
    ap50_95: Mapping[str, Resampled]

    def map50(self, labels: Collection[str] | None = None) -> Resampled:
        """The mean of the labels that have a box, or of these of them."""
        return _mean(self.ap50, labels)

    def map50_95(self, labels: Collection[str] | None = None) -> Resampled:
        """The same for all `IOUS`."""
        return _mean(self.ap50_95, labels)


def score(matches: Mapping[str, Matches], weights: Weights, ious: int = len(IOUS)) -> Scores:
    """The scores of each label that has a box; with fewer `ious`, `ap50_95` is of those."""
    ap50: dict[str, Resampled] = {}
    ap50_95: dict[str, Resampled] = {}
    for label, those in matches.items():
        if those.boxes:
            (value,) = average_precisions(those, as_they_are(len(those.boxes_of_image)), ious)
            resampled = average_precisions(those, weights, ious)
            ap50[label] = Resampled(float(value[0]), resampled[:, 0])
            ap50_95[label] = Resampled(float(value.mean()), resampled.mean(axis=1))
    return Scores(ap50, ap50_95)


def _mean(of_label: Mapping[str, Resampled], labels: Collection[str] | None) -> Resampled:
    chosen = [each for label, each in of_label.items() if labels is None or label in labels]
    if not chosen:
        return Resampled(np.nan, np.zeros(0))
    resampled = np.stack([each.resampled for each in chosen])
    counts = (~np.isnan(resampled)).sum(axis=0)
    means = np.where(counts > 0, np.nansum(resampled, axis=0) / np.maximum(counts, 1), np.nan)
    return Resampled(float(np.mean([each.value for each in chosen])), means)


def recall(matches: Matches, threshold: float, weights: Weights) -> Resampled:
    """The share of a label's boxes that is found with a score above the threshold, at the first of `IOUS`."""
    hits = matches.hits[:, 0] & (matches.scores > threshold)
    images = len(matches.boxes_of_image)
    hits_of_image = np.bincount(matches.image_numbers[hits], minlength=images)
    there = weights.astype(np.int64) @ matches.boxes_of_image
    found = weights.astype(np.int64) @ hits_of_image
    resampled = np.where(there > 0, found / np.maximum(there, 1), np.nan)
    return Resampled(float(hits.sum() / matches.boxes) if matches.boxes else np.nan, resampled)


def precisions_at_recalls(matches: Matches) -> Floats:
    """The best precision that is still to come at each of the recalls 0.00, 0.01 ... 1.00, at the first of `IOUS`."""
    at = np.flatnonzero(matches.hits[:, 0])
    hits = np.arange(1, len(at) + 1)
    best = np.maximum.accumulate((hits / (at + 1))[::-1])[::-1]
    # The first hit whose recall is above it; 0 where there is none.
    reached = np.ceil(hits * _RECALL_STEPS / max(matches.boxes, 1) - 1e-9)
    following = np.searchsorted(reached, np.arange(_RECALL_STEPS + 1), side="right")
    return np.append(best, 0.0)[following]
