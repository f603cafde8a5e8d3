"""The thresholds of labels."""

from __future__ import annotations

import numpy as np
import pytest

from yolo_backend.training.matching import Matches
from yolo_backend.training.thresholds import ThresholdRule, choose_threshold, precision_and_recall, together


def matches_of(right: list[float], wrong: list[float], boxes: int) -> Matches:
    """Hits and others with these scores, in one image."""
    scores = np.array([*right, *wrong])
    hits = np.array([True] * len(right) + [False] * len(wrong))
    order = np.argsort(-scores, kind="stable")
    return Matches(
        scores[order], np.zeros(len(scores), np.intp), np.repeat(hits[order, None], 10, axis=1), np.array([boxes])
    )


CLEAR = matches_of([0.8] * 20, [0.3] * 20, 20)
MIXED = matches_of([0.9, 0.8, 0.7, 0.6, 0.5] * 4, [0.55, 0.45, 0.35, 0.25, 0.15] * 4, 20)


def test_it_lies_where_right_and_wrong_part() -> None:
    threshold = choose_threshold(CLEAR)
    assert threshold is not None
    assert 0.3 <= threshold < 0.8


@pytest.mark.parametrize(("precision", "threshold"), [(0.5, 0.05), (0.8, 0.45), (1.0, 0.55)])
def test_the_lowest_that_has_the_precision(precision: float, threshold: float) -> None:
    """Boxes with just that score aren't shown: 20 right ones and 4 wrong ones are above 0.45."""
    assert choose_threshold(MIXED, precision) == threshold


def test_without_one_that_has_the_precision_it_is_the_best() -> None:
    matches = matches_of([0.6] * 9, [0.7, 0.2, 0.1], 20)
    assert choose_threshold(matches, 0.99) == 0.2
    rule = ThresholdRule(precision=0.99)
    assert rule.remarks({"cat": matches}) == [
        "No threshold has a precision of 0.99 for these labels, so they have the one that comes nearest: cat"
    ]
    assert ThresholdRule(precision=0.9).remarks({"cat": matches}) == []


@pytest.mark.parametrize(
    ("right", "wrong", "threshold"),
    [([0.02] * 20, [], 0.25), ([0.99] * 20, [], 0.05), ([0.04] * 20, [0.03] * 20, 0.25), ([], [0.5] * 20, 0.25)],
)
def test_it_is_never_beyond_what_makes_sense(right: list[float], wrong: list[float], threshold: float) -> None:
    """If nothing right is found above the lowest of all, nothing can be chosen by it."""
    assert ThresholdRule().choose({"cat": matches_of(right, wrong, 20)}) == {"cat": threshold}


def test_a_label_with_few_boxes_has_that_of_all_together() -> None:
    few = matches_of([0.2], [0.1], 1)
    chosen = ThresholdRule().choose({"cat": CLEAR, "dog": few})
    assert chosen == {"cat": choose_threshold(CLEAR), "dog": choose_threshold(together([CLEAR, few]))}
    assert ThresholdRule().remarks({"cat": CLEAR, "dog": few}) == [
        "Fewer than 10 validation boxes are too few for a threshold of their own, so these labels have that of all "
        "labels together: dog"
    ]


@pytest.mark.parametrize("precision", [None, 0.9])
@pytest.mark.parametrize("right", [[], [0.03] * 20])
def test_a_label_of_which_nothing_is_found_has_that_of_all_together(
    right: list[float], precision: float | None
) -> None:
    """All its boxes are wrong: the lowest of all thresholds would show every one."""
    missed = matches_of(right, [0.5] * 20, 20)
    rule = ThresholdRule(precision)
    assert choose_threshold(missed, precision) is None
    pooled = choose_threshold(together([CLEAR, missed]), precision)
    assert rule.choose({"cat": CLEAR, "dog": missed})["dog"] == pooled is not None
    assert rule.remarks({"cat": CLEAR, "dog": missed}) == [
        "None of the validation boxes of these labels was found, so they have no threshold of their own: dog"
    ]


def test_what_the_labeling_config_says_stays() -> None:
    rule = ThresholdRule(own={"cat": 0.95, "dog": 0.01})
    few = matches_of([0.2], [], 1)
    assert rule.choose({"cat": CLEAR, "dog": few}) == {"cat": 0.95, "dog": 0.01}
    assert rule.remarks({"cat": CLEAR, "dog": few}) == []


def test_without_any_box_it_is_the_default() -> None:
    assert ThresholdRule(default=0.4).choose({"cat": matches_of([], [], 0)}) == {"cat": 0.4}
    assert ThresholdRule().choose({}) == {}


def test_precision_is_unknown_where_nothing_is_found() -> None:
    precisions, recalls = precision_and_recall(matches_of([0.5], [0.3], 2))
    assert [precisions[0], precisions[30], precisions[44]] == [0.5, 1.0, 1.0]
    assert np.isnan(precisions[45])
    assert [recalls[0], recalls[44], recalls[45]] == [0.5, 0.5, 0.0]
