"""What chance gives: the scores of a model whose findings are held against shuffled boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

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
from yolo_backend.training.scores import RESAMPLES, Resampled, Weights, as_they_are, score
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

    `places` is counted as `map50_by_places` does, and is to be held against that score of the model.
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
            map50_by_places(shuffled_places(some, generator), found, labels, weights).value
            for _ in range(_PLACE_SHUFFLES)
        ]
        return cls(
            max((value for value in places if not math.isnan(value)), default=0.0),
            _shuffle_labels(some, found, generator),
            shuffle_points(some, found, generator),
        )


def map50_by_places(
    truths: Sequence[TrueBoxes], found: Sequence[FoundBoxes], labels: Sequence[str], weights: Weights
) -> Resampled:
    """The mAP50, but that of what has key points the box has to be a hit, too."""
    return score(match_all(truths, found, labels, IOUS[:1], by_places=True), weights, 1).map50()


def _shuffle_labels(
    truths: Sequence[TrueBoxes], found: Sequence[FoundBoxes], generator: np.random.Generator
) -> ShuffledLabels | None:
    """A test by permutation. It needs no interval, which would be too narrow with few boxes."""
    places_of_images = [_places_of(truth) for truth in truths]
    drawn = [
        frozenset(truth.labels[number] for number in np.flatnonzero(places == place))
        for truth, places in zip(truths, places_of_images, strict=True)
        for place in range(places.max(initial=-1) + 1)
    ]
    times_drawn = Counter(drawn)
    if len(drawn) - max(times_drawn.values(), default=0) < MIN_BOXES:
        return None
    sets = list(times_drawn)
    numbers = np.array([sets.index(those) for those in drawn], np.int16)
    found_labels, place_numbers = _places_below(truths, places_of_images, found)
    counts = Counter(label for truth in truths for label in truth.labels)
    of_labels = [
        (
            _once(place_numbers[found_labels == label]),
            np.array([*(label in those for those in sets), False], np.bool_),
            count,
        )
        for label, count in counts.items()
    ]
    ap50 = np.concatenate(
        [
            np.stack([_average_precisions(places, rows, has_label, count) for places, has_label, count in of_labels])
            for rows in _rows(numbers, generator)
        ],
        axis=1,
    )
    means = ap50.mean(axis=0)
    as_good = means[1:] >= means[0] - 1e-9
    return ShuffledLabels(dict(zip(counts, ap50[:, 1:].mean(axis=1).tolist(), strict=True)), int(as_good.sum()))


def _rows(numbers: NDArray[np.int16], generator: np.random.Generator) -> Iterator[NDArray[np.int16]]:
    """The places' sets of labels as people drew them, in the first row, and then on other places; some rows at a time.

    The last column is for what lies on no box, which is of the set -1.
    """
    orders = chain([numbers], (generator.permutation(numbers) for _ in range(RESAMPLES)))
    while rows := list(islice(orders, max(1, _AT_ONCE // (len(numbers) + 1)))):
        yield np.concatenate([np.stack(rows), np.full((len(rows), 1), -1, np.int16)], axis=1)


def _places_of(truth: TrueBoxes) -> NDArray[np.intp]:
    """For each thing the number of its place in the image. Those of the same place, as all choices of an image are,
    share one: what is found there overlaps all of them equally, and their labels change places together.
    """
    numbers: dict[object, int] = {}
    places = [
        (box.tobytes(), tuple(line.tobytes() for line in lines), points.tobytes())
        for box, lines, points in zip(truth.boxes_xywhr, truth.outlines, truth.points_xy, strict=True)
    ]
    return np.array([numbers.setdefault(place, len(numbers)) for place in places], np.intp)


def _places_below(
    truths: Sequence[TrueBoxes], places_of_images: Sequence[NDArray[np.intp]], found: Sequence[FoundBoxes]
) -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    """All that was found, best score first: its label, and the number of the place of the drawn box that it overlaps
    most; -1 for none.
    """
    below: list[NDArray[np.intp]] = []
    start = 0
    for truth, places, those in zip(truths, places_of_images, found, strict=True):
        overlaps = overlap_matrix(those, truth)
        below.append(np.full(len(overlaps), -1, np.intp))
        if len(places):
            below[-1] = np.where(overlaps.max(axis=1) >= IOUS[0], places[overlaps.argmax(axis=1)] + start, -1)
        start += places.max(initial=-1) + 1
    order = np.argsort(-np.concatenate([each.scores for each in found]), kind="stable")
    labels = np.array([label for each in found for label in each.labels], np.str_)
    return labels[order], np.concatenate(below)[order]


def _once(place_numbers: NDArray[np.intp]) -> NDArray[np.intp]:
    """What lies where a better one of the same label lies is no hit, whatever the label."""
    first = np.zeros(len(place_numbers), np.bool_)
    first[np.unique(place_numbers, return_index=True)[1]] = True
    return np.where(first, place_numbers, -1)


def _average_precisions(
    place_numbers: NDArray[np.intp], rows: NDArray[np.int16], has_label: NDArray[np.bool_], boxes: int
) -> Floats:
    """The average precision of a label for each row of sets of labels, (rows,); `has_label` says which sets have it."""
    at_once = max(1, _AT_ONCE // max(1, len(place_numbers)))
    ranks = np.arange(1, len(place_numbers) + 1)
    parts = []
    for start in range(0, len(rows), at_once):
        hits = has_label[rows[start : start + at_once][:, place_numbers]]
        precisions = hits.cumsum(axis=1, dtype=np.int32) / ranks
        best = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
        parts.append((best * hits).sum(axis=1) / boxes)
    return np.concatenate(parts)
