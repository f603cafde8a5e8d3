"""Boxes that were found against those that people drew: which of them are hits."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from yolo_backend.labels.places import corners_of_box
from yolo_backend.labels.polygons import Point, iou_matrix, polygon_iou, shared_areas
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.labelled import LabelledBox
from yolo_backend.training.mask_overlaps import Outlines, mask_ious
from yolo_backend.training.oks import similarities, with_points

Floats = NDArray[np.float64]

IOUS: Floats = np.linspace(0.5, 0.95, 10, dtype=np.float64)
"""How much a box has to overlap the drawn one: the first is for AP50, all of them for mAP50-95."""


@dataclass(frozen=True)
class TrueBoxes:
    """What people drew in an image of this size: `boxes_xyxy` (n, 4), `boxes_xywhr` (n, 5), and n labels.

    `outlines` are those of each; the sides of its upright hull where none were drawn. They are (points, 2).
    `points_xy` (n, points, 2) are their key points; NaN where nobody drew one.
    """

    labels: tuple[str, ...]
    boxes_xyxy: Floats
    boxes_xywhr: Floats
    size_wh: tuple[int, int]
    outlines: tuple[Outlines, ...] = ()
    points_xy: Floats = field(default_factory=lambda: np.zeros((0, 0, 2)))

    @classmethod
    def of(cls, boxes: Iterable[LabelledBox], size_wh: tuple[int, int], labels: Collection[str]) -> TrueBoxes:
        """Those of these labels."""
        kept = [box for box in boxes if box.label in labels]
        return cls(
            tuple(box.label for box in kept),
            np.array([box.box_xyxy for box in kept], np.float64).reshape(-1, 4),
            np.array([box.box_xywhr for box in kept], np.float64).reshape(-1, 5),
            size_wh,
            outlines=tuple(_outlines_of(box) for box in kept),
            points_xy=_points_of(kept),
        )


def _outlines_of(box: LabelledBox) -> Outlines:
    left, top, right, bottom = box.box_xyxy
    lines = box.outlines or (((left, top), (right, top), (right, bottom), (left, bottom)),)
    return tuple(np.array(line, np.float64) for line in lines)


@dataclass(frozen=True)
class Matches:
    """What was found of one label in all images, best score first, against the boxes that are there.

    `scores` and `image_numbers` are (n,). `hits` (n, 10) says whether it is a hit at each of `IOUS`.
    `boxes_of_image` has how many boxes there are in each image.
    """

    scores: Floats
    image_numbers: NDArray[np.intp]
    hits: NDArray[np.bool_]
    boxes_of_image: NDArray[np.int64]

    @property
    def boxes(self) -> int:
        """How many boxes there are."""
        return int(self.boxes_of_image.sum())


def match_all(
    truths: Sequence[TrueBoxes],
    found: Sequence[FoundBoxes],
    labels: Sequence[str],
    ious: Floats = IOUS,
    *,
    by_places: bool = False,
) -> dict[str, Matches]:
    """The matches of each label. Boxes that were found rotated are held against the drawn ones as they were drawn,
    others against their upright hulls, masks against what was drawn within its outlines, and key points by their OKS;
    with `by_places`, the boxes of these have to be hits, too.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    rows: list[tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]] = []
    counts = np.zeros((len(labels), len(truths)), np.int64)
    for image_number, (truth, those) in enumerate(zip(truths, found, strict=True)):
        found_labels, true_labels = (
            np.array([numbers.get(label, -1) for label in side.labels], np.int64) for side in (those, truth)
        )
        np.add.at(counts[:, image_number], true_labels[true_labels >= 0], 1)
        overlaps = overlap_matrix(those, truth, found_labels[:, None] == true_labels, by_places=by_places)
        rows.append((found_labels, those.scores, match(overlaps, ious)))
    image_numbers = np.repeat(np.arange(len(rows)), [len(scores) for _, scores, _ in rows])
    label_numbers = np.concatenate([row[0] for row in rows]) if rows else np.zeros(0, np.int64)
    scores = np.concatenate([row[1] for row in rows]) if rows else np.zeros(0)
    hits = np.concatenate([row[2] for row in rows]) if rows else np.zeros((0, len(ious)), np.bool_)
    order = np.argsort(-scores, kind="stable")
    of_label = {label: order[label_numbers[order] == number] for label, number in numbers.items()}
    return {
        label: Matches(scores[those], image_numbers[those], hits[those], counts[numbers[label]])
        for label, those in of_label.items()
    }


def match(overlaps: Floats, ious: Floats = IOUS) -> NDArray[np.bool_]:
    """Which of the found boxes, best score first, are hits at each of these IoUs: (found, IoUs) of `overlaps` (found,
    drawn). Each takes the drawn box that it overlaps most of those that are left, as Ultralytics matches them.
    """
    hits = np.zeros((len(overlaps), len(ious)), np.bool_)
    taken = np.zeros((overlaps.shape[1], len(ious)), np.bool_)
    every = np.arange(len(ious))
    for index in np.flatnonzero((overlaps >= ious.min()).any(axis=1)):
        free = np.where(taken, 0.0, overlaps[index][:, None])
        best = free.argmax(axis=0)
        hits[index] = free[best, every] >= ious
        taken[best, every] |= hits[index]
    return hits


def overlap_matrix(
    found: FoundBoxes, truth: TrueBoxes, wanted: NDArray[np.bool_] | None = None, *, by_places: bool = False
) -> Floats:
    """How alike each found thing and each drawn one are, (found, drawn); 0 where a pair isn't `wanted`.

    It is the IoU of their boxes, or of the pixels of masks; what was found with key points is held against the drawn
    ones instead, by their OKS. With `by_places` that is the lower one of OKS and IoU: with one to three points OKS is
    so tolerant that boxes of other images fit. Of masks and of rotated boxes those below the first of `IOUS` may be 0,
    too.
    """
    if found.masks is not None:
        scale_xy = np.divide(found.masks_wh, truth.size_wh)
        drawn = [[line * scale_xy for line in lines] for lines in truth.outlines]
        return mask_ious(found.masks, drawn, found.masks_wh, IOUS[0], wanted)
    if found.is_rotated:
        return _rotated_overlaps(found.boxes, truth.boxes_xywhr, wanted)
    overlaps = iou_matrix(found.boxes, truth.boxes_xyxy)
    if found.points_xy is not None and truth.points_xy.size:
        drawn_xy = with_points(truth.points_xy, found.points_xy.shape[1])
        # A box of which no point was drawn has only its place.
        are_drawn = ~np.isnan(drawn_xy).all(axis=(1, 2))
        oks = similarities(found.points_xy, drawn_xy, (truth.boxes_xyxy[:, 2:] - truth.boxes_xyxy[:, :2]).prod(axis=1))
        overlaps = np.where(are_drawn, np.minimum(oks, overlaps) if by_places else oks, overlaps)
    return overlaps if wanted is None else overlaps * wanted


def _points_of(boxes: Sequence[LabelledBox]) -> Floats:
    """Of boxes with different numbers of points, those that one doesn't have were not drawn."""
    points_xy = np.full((len(boxes), max((len(box.points) for box in boxes), default=0), 2), np.nan)
    for number, box in enumerate(boxes):
        for index, point in enumerate(box.points):
            if point is not None:
                points_xy[number, index] = point
    return points_xy


def _rotated_overlaps(found_xywhr: Floats, true_xywhr: Floats, wanted: NDArray[np.bool_] | None) -> Floats:
    """Cut by cut, but only where the upright hulls leave it possible that the first of `IOUS` is reached."""
    both = (found_xywhr, true_xywhr)
    found_corners, true_corners = ([corners_of_box(box) for box in boxes.tolist()] for boxes in both)
    shared = shared_areas(_hulls(found_corners), _hulls(true_corners))
    found_areas, true_areas = (boxes[:, 2] * boxes[:, 3] for boxes in both)
    most_shared = np.minimum(shared, np.minimum(found_areas[:, None], true_areas))
    possible = most_shared >= IOUS[0] * (found_areas[:, None] + true_areas - most_shared) - 1e-6
    if wanted is not None:
        possible &= wanted
    overlaps = np.zeros(possible.shape)
    for index, number in np.argwhere(possible & (most_shared > 0)):
        overlaps[index, number] = polygon_iou(found_corners[index], true_corners[number])
    return overlaps


def _hulls(corners: Sequence[Sequence[Point]]) -> Floats:
    points = np.array(corners, np.float64).reshape(-1, 4, 2)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def as_upright(found: Findings, sizes_wh: Sequence[tuple[int, int]]) -> Findings:
    """Rotated boxes as their upright hulls, within the image, as those that people drew have them."""
    return replace(
        found,
        images=[
            FoundBoxes(
                np.clip(_hulls([corners_of_box(box) for box in each.boxes.tolist()]), 0, np.tile(size_wh, 2)),
                each.scores,
                each.labels,
                points_xy=each.points_xy,
            )
            if each.is_rotated
            else each
            for each, size_wh in zip(found.images, sizes_wh, strict=True)
        ],
    )


def count_confusions(
    truths: Sequence[TrueBoxes], found: Sequence[FoundBoxes], labels: Sequence[str]
) -> NDArray[np.int64]:
    """How many boxes of each label (rows) were found as which (columns), where they overlap by the first of `IOUS`.

    The last row is of boxes where nothing was drawn, the last column of boxes that weren't found. A box of its own
    label comes first, then one of another. All boxes have to be of these labels.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    nothing = len(labels)
    counts = np.zeros((nothing + 1, nothing + 1), np.int64)
    for truth, those in zip(truths, found, strict=True):
        drawn, shown = (np.array([numbers[label] for label in side.labels], np.int64) for side in (truth, those))
        overlaps = overlap_matrix(those, truth)
        was_drawn, was_found = np.zeros(len(shown), np.bool_), np.zeros(len(drawn), np.bool_)
        for wanted in (shown[:, None] == drawn, np.ones_like(overlaps, np.bool_)):
            for index, number in _pairs(overlaps * wanted):
                counts[drawn[number], shown[index]] += 1
                was_drawn[index] = was_found[number] = True
                overlaps[index] = overlaps[:, number] = 0.0
        np.add.at(counts[nothing], shown[~was_drawn], 1)
        np.add.at(counts[:, nothing], drawn[~was_found], 1)
    return counts


def _pairs(overlaps: Floats) -> Iterator[tuple[int, int]]:
    """Each found box, best score first, with the drawn one that it overlaps most of those that are left."""
    left = overlaps.copy()
    for index in np.flatnonzero((overlaps >= IOUS[0]).any(axis=1)).tolist():
        number = int(left[index].argmax())
        if left[index, number] >= IOUS[0]:
            left[:, number] = 0.0
            yield index, number


def shuffled_places(truths: Sequence[TrueBoxes], generator: np.random.Generator) -> list[TrueBoxes]:
    """What people drew, with each image's boxes in another image, as large there as they were in their own."""
    order = generator.permutation(len(truths))
    there = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    return [_moved_to(truths[there[number]], truth.size_wh) for number, truth in enumerate(truths)]


def _moved_to(truth: TrueBoxes, size_wh: tuple[int, int]) -> TrueBoxes:
    scale_xy = np.divide(size_wh, truth.size_wh)
    mean = math.sqrt(scale_xy.prod())
    scale_xywhr = np.array([*scale_xy, mean, mean, 1.0])
    return TrueBoxes(
        truth.labels,
        truth.boxes_xyxy * np.tile(scale_xy, 2),
        truth.boxes_xywhr * scale_xywhr,
        size_wh,
        outlines=tuple(tuple(line * scale_xy for line in lines) for lines in truth.outlines),
        points_xy=truth.points_xy * scale_xy,
    )
