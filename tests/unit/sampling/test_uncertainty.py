"""Measures of boxes, and what they make together: by the formulas of docs/sampling.md."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_backend.sampling.uncertainty import AGGREGATES, MEASURES, image_uncertainty

THRESHOLD = 0.25
PROBABILITIES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("measure", "score", "expected"),
    [
        ("least-confidence", 0.0, 0),
        ("least-confidence", 0.1, 0.2),
        ("least-confidence", 0.5, 1),
        ("least-confidence", 0.8, 0.4),
        ("least-confidence", 1.0, 0),
        ("margin", 0.0, 0),
        ("margin", 0.1, 0.04),
        ("margin", 0.5, 1),
        ("margin", 0.8, 0.16),
        ("margin", 1.0, 0),
        ("entropy", 0.0, 0),
        ("entropy", 0.25, 2 - 0.75 * math.log2(3)),
        ("entropy", 0.5, 1),
        ("entropy", 1.0, 0),
        ("threshold", 0.0, 0),
        ("threshold", 0.1, 0.4),
        ("threshold", 0.25, 1),
        ("threshold", 0.5, 2 / 3),
        ("threshold", 1.0, 0),
    ],
)
def test_a_measure_follows_its_formula(measure: str, score: float, expected: float) -> None:
    assert MEASURES[measure](score, THRESHOLD) == pytest.approx(expected)


@pytest.mark.parametrize("measure", MEASURES)
@given(score=PROBABILITIES, threshold=PROBABILITIES)
def test_every_measure_goes_from_0_to_1(measure: str, score: float, threshold: float) -> None:
    assert 0 <= MEASURES[measure](score, threshold) <= 1


@pytest.mark.parametrize("measure", ["least-confidence", "margin", "entropy"])
@given(scores=st.tuples(PROBABILITIES, PROBABILITIES))
def test_of_two_outcomes_all_measures_rank_boxes_alike(measure: str, scores: tuple[float, float]) -> None:
    # docs/sampling.md says so: what nears 0.5 is never less uncertain.
    nearer, farther = sorted(scores, key=lambda score: abs(score - 0.5))
    assert MEASURES[measure](nearer, THRESHOLD) >= MEASURES[measure](farther, THRESHOLD) - 1e-12


@pytest.mark.parametrize("threshold", [0.0, 0.25, 1.0])
def test_a_box_at_its_own_threshold_is_the_most_uncertain(threshold: float) -> None:
    assert MEASURES["threshold"](threshold, threshold) == 1


@pytest.mark.parametrize(
    ("aggregate", "scores", "expected"),
    [
        ("max", [], 0.3),
        ("mean", [], 0.3),
        ("sum", [], 0.3),
        ("max", [0.9], 0.2),
        ("mean", [0.9], 0.2),
        ("sum", [0.9], 0.2),
        ("max", [0.9, 0.5, 0.2], 1),
        ("mean", [0.9, 0.5, 0.2], 1.6 / 3),
        ("sum", [0.9, 0.5, 0.2], 1.6),
    ],
)
def test_boxes_make_an_images_uncertainty(aggregate: str, scores: list[float], expected: float) -> None:
    uncertainty = image_uncertainty(
        scores,
        [THRESHOLD] * len(scores),
        measure=MEASURES["least-confidence"],
        aggregate=AGGREGATES[aggregate],
        empty=0.3,
    )
    assert uncertainty == pytest.approx(expected)


def test_each_box_has_its_own_threshold() -> None:
    at_their_thresholds = image_uncertainty(
        [0.2, 0.6], [0.2, 0.6], measure=MEASURES["threshold"], aggregate=AGGREGATES["mean"], empty=0
    )
    assert at_their_thresholds == 1
