"""What chance gives: the scores of a model whose findings are held against shuffled boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolo_backend.training.found import FoundBoxes
from yolo_backend.training.matching import (
    IOUS,
    Floats,
    TrueBoxes,
    match_all,
    overlap_matrix,
    shuffled_places,
)
from yolo_backend.training.point_chance import ShuffledPoints, shuffle_points
from yolo_backend.training.scores import RESAMPLES, as_they_are, score
from yolo_backend.training.thresholds import MIN_BOXES

MOST_AS_GOOD = 4
"""If labels on other boxes fit what is found as well in more of the `RESAMPLES` shuffles, that is chance."""

_PLACE_SHUFFLES = 10  # the best score of so many is what chance gives
_MOST_SHUFFLED = 300  # images: more make chance no clearer
_AT_ONCE = 5_000_000  # numbers in one array


@dataclass(frozen=True)
class ShuffledLabels:
    """The AP50 of each label with the labels on other boxes, as the mean of all shuffles; and in how many of the
    shuffles the mean of all labels is at least as good as with the labels as they are.
    """

    ap50: Mapping[str, float]
    as_good: int


@dataclass(frozen=True)
class Chance:
    """What shuffled boxes give: the mAP50 with each image's boxes in another image, and what other labels give.

    `labels` is None if too few boxes have another label than most have, and `points` if too few things were found that
    have several key points.
    """

    places: float
    labels: ShuffledLabels | None
    points: ShuffledPoints | None = None

    @classmethod
    def of(cls, truths: Sequence[TrueBoxes], found: Sequence[FoundBoxes], labels: Sequence[str], seed: int) -> Chance:
        """What it gives to a model that found this."""
        generator = np.random.default_rng(seed)
        chosen = np.sort(generator.permutation(len(truths))[:_MOST_SHUFFLED]).tolist()
        some, found = [truths[number] for number in chosen], [found[number] for number in chosen]
        weights = as_they_are(len(some))
        places = [
            score(match_all(shuffled_places(some, generator), found, labels, IOUS[:1]), weights, 1).map50().value
            for _ in range(_PLACE_SHUFFLES)
        ]
        return cls(
            max((value for value in places if not math.isnan(value)), default=0.0),
            _shuffle_labels(some, found, generator),
            shuffle_points(some, found, generator),
        )


def _shuffle_labels(
    truths: Sequence[TrueBoxes], found: Sequence[FoundBoxes], generator: np.random.Generator
) -> ShuffledLabels | None:
    """A test by permutation. It needs no interval, which would be too narrow with few boxes."""
    drawn = [label for truth in truths for label in truth.labels]
    counts = Counter(drawn)
    if len(drawn) - max(counts.values(), default=0) < MIN_BOXES:
        return None
    names = list(counts)
    numbers = np.array([names.index(label) for label in drawn], np.int16)
    # The first row is as people drew. The last column is for what lies on no box.
    rows = np.stack([numbers, *(generator.permutation(numbers) for _ in range(RESAMPLES))])
    rows = np.concatenate([rows, np.full((len(rows), 1), -1, np.int16)], axis=1)
    found_labels, box_numbers = _boxes_below(truths, found)
    ap50 = np.stack(
        [
            _average_precisions(_once(box_numbers[found_labels == label]), rows, number, counts[label])
            for number, label in enumerate(names)
        ]
    )
    means = ap50.mean(axis=0)
    as_good = means[1:] >= means[0] - 1e-9
    return ShuffledLabels(dict(zip(names, ap50[:, 1:].mean(axis=1).tolist(), strict=True)), int(as_good.sum()))


def _boxes_below(truths: Sequence[TrueBoxes], found: Sequence[FoundBoxes]) -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    """All that was found, best score first: its label, and the number of the drawn box that it overlaps most; -1 for
    none.
    """
    on_box: list[NDArray[np.intp]] = []
    start = 0
    for truth, those in zip(truths, found, strict=True):
        overlaps = overlap_matrix(those, truth)
        on_box.append(np.full(len(overlaps), -1, np.intp))
        if len(truth.labels):
            on_box[-1] = np.where(overlaps.max(axis=1) >= IOUS[0], overlaps.argmax(axis=1) + start, -1)
        start += len(truth.labels)
    order = np.argsort(-np.concatenate([each.scores for each in found]), kind="stable")
    labels = np.array([label for each in found for label in each.labels], np.str_)
    return labels[order], np.concatenate(on_box)[order]


def _once(box_numbers: NDArray[np.intp]) -> NDArray[np.intp]:
    """What lies on a box that a better one lies on is no hit, whatever the label."""
    first = np.zeros(len(box_numbers), np.bool_)
    first[np.unique(box_numbers, return_index=True)[1]] = True
    return np.where(first, box_numbers, -1)


def _average_precisions(
    box_numbers: NDArray[np.intp], rows: NDArray[np.int16], label_number: int, boxes: int
) -> Floats:
    """The average precision of a label for each row of labels: (rows,)."""
    at_once = max(1, _AT_ONCE // max(1, len(box_numbers)))
    ranks = np.arange(1, len(box_numbers) + 1)
    parts = []
    for start in range(0, len(rows), at_once):
        hits = rows[start : start + at_once][:, box_numbers] == label_number
        precisions = hits.cumsum(axis=1, dtype=np.int32) / ranks
        best = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
        parts.append((best * hits).sum(axis=1) / boxes)
    return np.concatenate(parts)
