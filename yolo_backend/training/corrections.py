"""Whether the labels can still be trusted: what became of the boxes that the serving model had found rightly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.gate import MIN_IMAGES
from yolo_backend.training.labelled import LabelledBox, LabelledImage
from yolo_backend.training.mask_overlaps import Outlines
from yolo_backend.training.matching import IOUS, Floats, TrueBoxes, match, match_all, overlap_matrix
from yolo_backend.training.oks import with_points
from yolo_backend.training.scores import Resampled, as_they_are, resample, score
from yolo_backend.training.thresholds import MIN_BOXES, ThresholdRule

_SAME_PX = 0.5
_TOLERATED_FALL = 0.1  # of the serving model's score, by corrected labels
_TOLERATED_BOXES = 2  # that were right and have another label now: fewer than three are single corrections
_TOLERATED_SHARE = 0.04  # of the boxes that were right, as the mean of the labels


def check_labels(
    now: Sequence[LabelledImage],
    then: Mapping[str, Sequence[LabelledBox]],
    current: Findings,
    labels: Sequence[str],
    *,
    seed: int = 0,
) -> str | None:
    """Why the labels can't be trusted, None if they can: whether they fit what the serving model finds much less than
    those of an earlier run did, on the same images.

    Either its score fell too far, or it fell and too many boxes that the model had found rightly have another label.
    `then` goes by the images' digests, and `labels` are the labeling config's of now. Labels that nobody had drawn
    then don't count, nor those that are gone from the config. Those with few boxes count for the score only if all
    have few. An image of several tasks doesn't count, because `then` has the boxes of one of them.
    """
    tasks = Counter(image.digest for image in now)
    common = [number for number, image in enumerate(now) if image.digest in then and tasks[image.digest] == 1]
    if len(common) < MIN_IMAGES:
        return None
    current = current.at(common)
    images, found = [now[number] for number in common], current.images
    drawn_then = Counter(box.label for image in images for box in then[image.digest])
    known = [label for label in labels if drawn_then[label]]
    many = [label for label in known if drawn_then[label] >= MIN_BOXES] or known
    if not known:
        return None
    before = [TrueBoxes.of(then[image.digest], image.size_wh, known) for image in images]
    after = [TrueBoxes.of(image.boxes, image.size_wh, known) for image in images]
    changed = sum(not _is_same(*pair) for pair in zip(before, after, strict=True))
    if not changed:
        return None
    matches = match_all(before, found, known, IOUS[:1])
    weights = resample(len(images), seed)
    was = score(matches, weights, 1)
    is_now = score(match_all(after, found, known, IOUS[:1]), as_they_are(len(images)), 1)

    def fell(judged: Sequence[str]) -> tuple[Resampled, float]:
        # A label whose boxes are all gone counts as nothing found, because it was there.
        values = [is_now.ap50[label].value if label in is_now.ap50 else 0.0 for label in judged]
        return was.map50(judged), sum(values) / len(values)

    value, value_now = fell(many)
    # The interval of a perfect score has no width, and one correction would be a fall.
    if value_now >= min(value.interval[0], (1 - _TOLERATED_FALL) * value.value):
        value, value_now = fell(known)
        thresholds = ThresholdRule().choose(matches)
        shown = [each.above(thresholds) for each in current.shown]
        if value_now >= value.value or not _are_relabelled(before, after, shown):
            return None
    return (
        f"the labels of {changed} of {len(images)} validation images changed; "
        f"the serving model fell from {value.value:.2f} to {value_now:.2f}"
    )


def _are_relabelled(before: Sequence[TrueBoxes], after: Sequence[TrueBoxes], found: Sequence[FoundBoxes]) -> bool:
    """Returns True if too many boxes that were found rightly have another label in their place now."""
    right: Counter[str] = Counter()
    relabelled: Counter[str] = Counter()
    for then, now, those in zip(before, after, found, strict=True):
        was_right, is_right, is_there = (
            match(overlaps, IOUS[:1])[:, 0]
            for overlaps in (
                _overlaps_of_own_label(those, then),
                _overlaps_of_own_label(those, now),
                overlap_matrix(those, now),
            )
        )
        for counted, which in ((right, was_right), (relabelled, was_right & ~is_right & is_there)):
            counted.update(those.labels[number] for number in np.flatnonzero(which))
    shares = [relabelled[label] / boxes for label, boxes in right.items()]
    return relabelled.total() > _TOLERATED_BOXES and sum(shares) / len(shares) > _TOLERATED_SHARE


def _overlaps_of_own_label(found: FoundBoxes, truth: TrueBoxes) -> Floats:
    found_labels, true_labels = (np.array(side.labels, np.str_) for side in (found, truth))
    return overlap_matrix(found, truth, found_labels[:, None] == true_labels)


def _is_same(one: TrueBoxes, other: TrueBoxes) -> bool:
    """Returns True if both have the same labels, and key points, in the same places, in whatever order."""
    if sorted(one.labels) != sorted(other.labels):
        return False
    left = list(range(len(other.labels)))
    mine, theirs = (np.concatenate([each.boxes_xyxy, each.boxes_xywhr[:, :4]], axis=1) for each in (one, other))
    points = max(one.points_xy.shape[1], other.points_xy.shape[1])
    my_points, their_points = (with_points(each.points_xy, points) for each in (one, other))
    for index, (label, box, outlines) in enumerate(zip(one.labels, mine, one.outlines, strict=True)):
        for number in left:
            is_there = other.labels[number] == label and np.abs(theirs[number] - box).max() <= _SAME_PX
            has_lines = is_there and _have_same_lines(outlines, other.outlines[number])
            if has_lines and np.allclose(their_points[number], my_points[index], 0, _SAME_PX, equal_nan=True):
                left.remove(number)
                break
    return not left


def _have_same_lines(one: Outlines, other: Outlines) -> bool:
    return [len(line) for line in one] == [len(line) for line in other] and all(
        np.abs(mine - theirs).max() <= _SAME_PX for mine, theirs in zip(one, other, strict=True)
    )
