"""What chance gives to a model that found this or that; test_gate.py has what the gate makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.harness.findings import (
    LABELS,
    labelled,
    noisy,
    recorded,
    spoiled_labels,
    trained_on_shuffled_labels,
    without,
)
from yolo_backend.training.chance import MOST_AS_GOOD, Chance, ShuffledLabels
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.matching import IOUS, TrueBoxes, match_all
from yolo_backend.training.scores import RESAMPLES, as_they_are, score

pytestmark = pytest.mark.long  # thousands of resamples each

LEFT, RIGHT = (10, 10, 60, 60), (200, 10, 260, 60)


def chance_of(images: list[LabelledImage], found: Findings, seed: int = 0) -> Chance:
    truths = [TrueBoxes.of(image.boxes, image.size_wh, LABELS) for image in images]
    return Chance.of(truths, found.images, LABELS, seed)


def labels_of(images: list[LabelledImage], found: Findings, seed: int = 0) -> ShuffledLabels:
    chance = chance_of(images, found, seed)
    assert chance.labels is not None
    return chance.labels


def finds_all_as(images: list[LabelledImage], label: str) -> Findings:
    """A model that finds each box, and calls all of them the same."""
    found = [
        FoundBoxes(
            np.array([each.box_xyxy for each in image.boxes]),
            np.full(len(image.boxes), 0.9),
            (label,) * len(image.boxes),
        )
        for image in images
    ]
    return Findings(frozenset(LABELS), found)


def test_no_shuffle_is_as_good_as_what_a_detector_found() -> None:
    those = recorded().some(10, np.random.default_rng(0))
    found = labels_of(those.images, those.better)
    assert found.as_good == 0
    assert found.ap50.keys() == set(LABELS)
    # Most boxes are red cells: a model that finds boxes of those is right whatever the labels.
    assert found.ap50["RBC"] > 0.4
    assert found.ap50["WBC"] < 0.2


@pytest.mark.parametrize("count", [10, pytest.param(30, marks=pytest.mark.proof)])
def test_of_a_model_of_shuffled_labels_every_second_shuffle_is_as_good(count: int) -> None:
    counts = []
    for seed in range(8):
        those = recorded().some(count, np.random.default_rng(seed))
        found = trained_on_shuffled_labels(those.better, those.images, seed)
        counts.append(labels_of(spoiled_labels(those.images, seed), found, seed).as_good)
    assert min(counts) > MOST_AS_GOOD
    assert 0.25 < np.mean(counts) / RESAMPLES < 0.75


def test_a_young_model_and_one_that_has_learned_a_single_label_are_no_chance() -> None:
    for seed in range(8):
        those = recorded().some(10, np.random.default_rng(seed))
        only_rbc = without(without(those.better, "WBC", 1, 0), "Platelets", 1, 0)
        for found in (noisy(those.worse, seed, dropped=0.6, logits=2), only_rbc):
            assert labels_of(those.images, found, seed).as_good <= MOST_AS_GOOD


def test_a_model_that_calls_everything_the_same_tells_nothing_apart() -> None:
    images = [labelled(number, [(LABELS[number % 2], LEFT)]) for number in range(24)]
    assert RESAMPLES / 4 < labels_of(images, finds_all_as(images, "RBC")).as_good < RESAMPLES * 3 / 4


def test_with_few_boxes_of_other_labels_only_places_are_shuffled() -> None:
    """Of ten shuffles of nine labels and one, one is right."""
    images = [labelled(number, [("RBC", LEFT), ("RBC", RIGHT)]) for number in range(11)]
    few = [*images, *(labelled(20 + number, [("WBC", LEFT)]) for number in range(9))]
    assert chance_of(few, finds_all_as(few, "RBC")).labels is None
    enough = [*few, labelled(40, [("Platelets", LEFT)])]
    assert chance_of(enough, finds_all_as(enough, "RBC")).labels is not None
    assert chance_of(images, finds_all_as(images, "RBC")).labels is None


def test_without_boxes_and_without_findings() -> None:
    nothing = [labelled(number, []) for number in range(3)]
    empty = Findings(frozenset(LABELS), [FoundBoxes(np.zeros((0, 4)), np.zeros(0), ())] * 3)
    assert chance_of(nothing, empty) == Chance(0.0, None)
    images = [labelled(number, [(LABELS[number % 2], LEFT)]) for number in range(24)]
    missed = replace(empty, images=[*empty.images] * 8)
    assert labels_of(images, missed) == ShuffledLabels({"RBC": 0.0, "WBC": 0.0}, RESAMPLES)


def test_a_second_finding_on_a_box_is_no_hit() -> None:
    """As where boxes are matched: it comes after all first ones, so it changes nothing."""
    images = [labelled(number, [(LABELS[number % 2], LEFT)]) for number in range(24)]

    def finds(*labels: str) -> Findings:
        boxes, scores = np.array([LEFT] * len(labels), float), np.linspace(0.9, 0.7, len(labels), dtype=np.float64)
        return Findings(frozenset(LABELS), [FoundBoxes(boxes, scores, labels) for _ in images])

    once, twice = labels_of(images, finds("RBC")), labels_of(images, finds("RBC", "RBC"))
    assert 0.5 < once.ap50["RBC"] < 0.7
    assert twice == once


def test_the_shuffled_score_is_that_of_shuffled_images() -> None:
    """As if the labels of the images themselves were shuffled, and all were matched and scored anew."""
    those = recorded().some(20, np.random.default_rng(1))
    shuffled = labels_of(those.images, those.better)
    values = []
    for seed in range(8):
        images = spoiled_labels(those.images, seed)
        truths = [TrueBoxes.of(image.boxes, image.size_wh, LABELS) for image in images]
        values.append(score(match_all(truths, those.better.images, LABELS, IOUS[:1]), as_they_are(20), 1).ap50)
    for label in LABELS:
        assert shuffled.ap50[label] == pytest.approx(np.mean([each[label].value for each in values]), abs=0.03)


def test_shuffled_a_few_at_a_time_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where people drew so much that not all shuffles are in memory at once."""
    those = recorded().some(10, np.random.default_rng(0))
    at_once = labels_of(those.images, those.better)
    monkeypatch.setattr("yolo_backend.training.chance._AT_ONCE", 1000)
    few = labels_of(those.images, those.better)
    assert few.as_good == at_once.as_good
    assert few.ap50 == pytest.approx(at_once.ap50, rel=1e-9)
