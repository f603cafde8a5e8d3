"""The threshold of each label: above which score a box is worth showing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from yolo_backend.messages import shortened
from yolo_backend.training.matching import Floats, Matches
from yolo_backend.training.things import BOXES, Things

MIN_BOXES = 10
"""A label with fewer validation boxes isn't judged by itself, and has no threshold of its own."""
# Thresholds are chosen among these: lower ones show heaps of boxes, and above the highest is hardly anything.
THRESHOLDS: Floats = np.round(np.arange(0.05, 0.901, 0.01), 2)
_SMOOTHED_OVER = 9  # of them: a tenth of all scores, as Ultralytics smooths
_MAX_NAMES = 8


@dataclass(frozen=True)
class ThresholdRule:
    """How thresholds are chosen: for the best F1, or the lowest that has at least a `precision`.

    A label of `own`, the labeling config's, keeps what stands there. Where nothing is to choose by, it is `default`.
    """

    precision: float | None = None
    own: Mapping[str, float] = field(default_factory=dict)
    default: float = 0.25

    def choose(self, matches: Mapping[str, Matches]) -> dict[str, float]:
        """The threshold of each label; one with few boxes has that of all labels together."""
        pooled = choose_threshold(together(list(matches.values())), self.precision) if matches else None
        chosen: dict[str, float] = {}
        for label, those in matches.items():
            alone = choose_threshold(those, self.precision) if those.boxes >= MIN_BOXES else None
            candidates = (self.own.get(label), alone, pooled, self.default)
            chosen[label] = next(each for each in candidates if each is not None)
        return chosen

    def remarks(self, matches: Mapping[str, Matches], things: Things = BOXES) -> list[str]:
        """What a person should know of them."""
        mine = {label: those for label, those in matches.items() if label not in self.own}
        remarks = []
        if few := [label for label, those in mine.items() if those.boxes < MIN_BOXES]:
            remarks.append(
                f"Fewer than {MIN_BOXES} validation {things.several} are too few for a threshold of their own, so "
                f"these labels have that of all labels together: {names_of(few)}"
            )
        if missed := [label for label, those in mine.items() if label not in few and choose_threshold(those) is None]:
            remarks.append(
                f"None of the validation {things.several} of these labels was found, so they have no threshold of "
                f"their own: {names_of(missed)}"
            )
        if self.precision is not None:
            unreached = [
                label
                for label, those in mine.items()
                if label not in few + missed and not (precision_and_recall(those)[0] >= self.precision).any()
            ]
            if unreached:
                remarks.append(
                    f"No threshold has a precision of {self.precision:g} for these labels, so they have the one that "
                    f"comes nearest: {names_of(unreached)}"
                )
        return remarks


def names_of(labels: Sequence[str]) -> str:
    """Some labels as a part of a sentence."""
    shown = ", ".join(shortened(label, 30) for label in labels[:_MAX_NAMES])
    return shown + (f" and {len(labels) - _MAX_NAMES} more" if len(labels) > _MAX_NAMES else "")


def choose_threshold(matches: Matches, precision: float | None = None) -> float | None:
    """The threshold of the best F1, of a curve that is smoothed, or with `precision` the lowest that reaches it.

    Where none reaches it, it is that of the best precision. None where no box that was drawn is found: all thresholds
    are as good then.
    """
    precisions, recalls = precision_and_recall(matches)
    if not recalls[0]:
        return None
    if precision is not None:
        reached = np.flatnonzero(precisions >= precision)
        return float(THRESHOLDS[reached[0] if len(reached) else np.nanargmax(precisions)])
    known = np.nan_to_num(precisions)
    f1 = 2 * known * recalls / np.maximum(known + recalls, 1e-9)
    return float(THRESHOLDS[_smoothed(f1).argmax()])


def precision_and_recall(matches: Matches) -> tuple[Floats, Floats]:
    """Both at each of `THRESHOLDS`, at an IoU of 0.5; precision is NaN where nothing is found any more."""
    found = np.searchsorted(-matches.scores, -THRESHOLDS, side="left")  # strictly above, as boxes are served
    hits = np.concatenate([[0], matches.hits[:, 0].cumsum()])[found]
    precisions = np.where(found > 0, hits / np.maximum(found, 1), np.nan)
    return precisions, hits / max(matches.boxes, 1)


def together(matches: Sequence[Matches]) -> Matches:
    """Several labels as if they were one."""
    scores = np.concatenate([each.scores for each in matches])
    order = np.argsort(-scores, kind="stable")
    return Matches(
        scores[order],
        np.concatenate([each.image_numbers for each in matches])[order],
        np.concatenate([each.hits for each in matches])[order],
        np.sum([each.boxes_of_image for each in matches], axis=0),
    )


def _smoothed(values: Floats) -> Floats:
    """A moving average; at the ends, the first and the last go on."""
    side = _SMOOTHED_OVER // 2
    padded = np.concatenate([np.full(side, values[0]), values, np.full(side, values[-1])])
    return np.convolve(padded, np.full(_SMOOTHED_OVER, 1 / _SMOOTHED_OVER), mode="valid")
