"""Average precision and recall, as they are and resampled; tests/integration holds them against Ultralytics'."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.harness.findings import LABELS, recorded
from yolo_backend.training.matching import Matches, TrueBoxes, match_all
from yolo_backend.training.scores import (
    Resampled,
    as_they_are,
    average_precisions,
    precisions_at_recalls,
    recall,
    resample,
    score,
)


def matches_of(hits: str, boxes: int, scores: list[float] | None = None) -> Matches:
    """One image: `+` is a hit, `-` is none, best score first."""
    row = np.array([each == "+" for each in hits])
    return Matches(
        np.array(scores or np.linspace(0.9, 0.1, len(hits))),
        np.zeros(len(hits), np.intp),
        np.repeat(row[:, None], 10, axis=1),
        np.array([boxes]),
    )


def recorded_matches(images: int = 87) -> dict[str, Matches]:
    those = recorded()
    truths = [TrueBoxes.of(image.boxes, image.size_wh, LABELS) for image in those.images[:images]]
    return match_all(truths, those.better.images[:images], LABELS)


@pytest.mark.parametrize(
    ("hits", "boxes", "expected"),
    [
        ("+", 1, 0.995),  # of 101 recalls the last has no precision, with Ultralytics
        ("++", 2, 0.995),
        ("+", 2, 0.495),
        ("-+", 1, 0.4975),
        ("+-+", 2, 0.495 + 0.5 * 2 / 3),
        ("-", 1, 0.0),
        ("", 3, 0.0),
    ],
)
def test_average_precision(hits: str, boxes: int, expected: float) -> None:
    assert average_precisions(matches_of(hits, boxes), as_they_are(1))[0].tolist() == pytest.approx([expected] * 10)


def test_a_label_without_boxes_has_none() -> None:
    assert np.isnan(average_precisions(matches_of("-", 0), as_they_are(1))).all()
    assert score({"cat": matches_of("-", 0)}, resample(1, 0)).ap50 == {}
    assert math.isnan(score({}, resample(3, 0)).map50().value)


def test_the_mean_of_a_resample_is_that_of_the_labels_that_have_a_box_in_it() -> None:
    """Of two images, one with a cat that is found, one with a dog that isn't."""
    cat = Matches(np.array([0.9]), np.array([0]), np.ones((1, 10), np.bool_), np.array([1, 0]))
    dog = Matches(np.array([]), np.array([], np.intp), np.zeros((0, 10), np.bool_), np.array([0, 1]))
    weights = np.array([[1, 1], [2, 0], [0, 2]], np.uint16)
    mean = score({"cat": cat, "dog": dog}, weights).map50()
    assert mean.value == pytest.approx(0.4975)
    assert mean.resampled.tolist() == pytest.approx([0.4975, 0.995, 0.0])
    alone = score({"cat": cat}, weights).map50()
    assert alone.resampled.tolist() == pytest.approx([0.995, 0.995, math.nan], nan_ok=True)


def test_a_resample_is_as_if_its_images_were_there_so_often() -> None:
    """Each of these, an image after the other, copied into a data set of its own."""
    those = recorded()
    truths = [TrueBoxes.of(image.boxes, image.size_wh, LABELS) for image in those.images]
    weights = resample(len(truths), 3, resamples=2)
    matches = match_all(truths, those.better.images, LABELS)
    for row in weights:
        chosen = np.repeat(np.arange(len(truths)), row).tolist()
        copied = match_all(
            [truths[number] for number in chosen], [those.better.images[number] for number in chosen], LABELS
        )
        for label in LABELS:
            (expected,) = average_precisions(copied[label], as_they_are(len(chosen)))
            # Scores are recorded to four digits, so some are alike, and which of them is first is left open.
            np.testing.assert_allclose(average_precisions(matches[label], row[None])[0], expected, atol=2e-3)


@pytest.mark.long
def test_the_scores_of_recorded_findings() -> None:
    scores = score(recorded_matches(), resample(87, 0))
    assert {label: round(each.value, 3) for label, each in scores.ap50.items()} == {
        "RBC": 0.78,
        "WBC": 0.992,
        "Platelets": 0.698,
    }
    assert round(scores.map50().value, 4) == 0.8235
    assert [round(end, 3) for end in scores.map50().interval] == [0.774, 0.872]
    assert round(scores.map50_95().value, 4) == 0.5225
    assert round(scores.map50(["WBC"]).value, 3) == 0.992


@pytest.mark.long
def test_the_interval_is_as_wide_as_new_images_make_it() -> None:
    """Of twenty halves of the photographs, each with its own interval, nine of ten at least have the whole in it."""
    whole = score(recorded_matches(), as_they_are(87)).map50().value
    inside = 0
    for seed in range(20):
        those = recorded().some(43, np.random.default_rng(seed))
        truths = [TrueBoxes.of(image.boxes, image.size_wh, LABELS) for image in those.images]
        low, high = score(match_all(truths, those.better.images, LABELS), resample(43, seed, 200), 1).map50().interval
        inside += low <= whole <= high
    assert inside >= 18


def test_resamples_are_those_of_their_seed() -> None:
    weights = resample(50, 1)
    assert weights.shape == (2000, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert np.array_equal(weights, resample(50, 1))
    assert not np.array_equal(weights, resample(50, 2))
    assert resample(0, 1).shape == (2000, 0)


def test_a_number_and_its_resamples() -> None:
    number = Resampled(0.5, np.array([np.nan, 0.1, 0.2, 0.3]))
    assert number.interval == pytest.approx((0.105, 0.295))
    assert number.share_below(0.25) == 0.5
    assert (number - number).share_below(0.0) == 0.0
    assert Resampled(np.nan, np.zeros(0)).share_below(1.0) == 0.0
    assert math.isnan(Resampled(np.nan, np.zeros(0)).interval[0])


def test_recall_counts_what_is_strictly_above_the_threshold() -> None:
    matches = matches_of("+-+", 4, [0.9, 0.6, 0.5])
    assert [recall(matches, threshold, as_they_are(1)).value for threshold in (0.4, 0.5, 0.9)] == [0.5, 0.25, 0.0]
    assert recall(matches, 0.5, np.array([[3]], np.uint16)).resampled.tolist() == [0.25]
    assert math.isnan(recall(matches_of("-", 0), 0.5, as_they_are(1)).resampled[0])


def test_the_curve_is_that_of_the_average_precision() -> None:
    matches = recorded_matches()["Platelets"]
    curve = precisions_at_recalls(matches)
    (expected,) = average_precisions(matches, as_they_are(87), 1)
    assert len(curve) == 101
    assert np.trapezoid(curve, dx=0.01) == pytest.approx(expected[0])
    assert precisions_at_recalls(matches_of("", 3)).tolist() == [0.0] * 101
