"""Whether a model tells key points apart, by shuffles of the points that people drew."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.findings import box, labelled
from yolo_backend.training.chance import MOST_AS_GOOD
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.gate import Judgement, judge
from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.matching import TrueBoxes
from yolo_backend.training.point_chance import ShuffledPoints, shuffle_points
from yolo_backend.training.scores import RESAMPLES
from yolo_backend.training.thresholds import ThresholdRule

Floats = NDArray[np.float64]
Change = Callable[[Floats, np.random.Generator], Floats]

SIZE_PX = 100
LAYOUT = np.array([(50.0, 10.0), (10.0, 50.0), (90.0, 90.0)])  # of points in a thing that isn't turned
LABELS = ("dog",)


def images(count: int, points: int = 3, *, seed: int = 0, is_poisoned: bool = False) -> list[LabelledImage]:
    """A thing in each, turned anyhow; if it is poisoned, somebody named its points anyhow."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        angle = generator.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        places = (LAYOUT[:points] - 50) @ turn / 1.5 + 150
        places = generator.permutation(places) if is_poisoned else places
        thing = replace(box("dog", (100, 100, 200, 200)), points=tuple(map(tuple, places.tolist())))
        made.append(replace(labelled(number, []), boxes=(thing,)))
    return made


def found_in(those: list[LabelledImage], change: Change, seed: int = 1) -> list[FoundBoxes]:
    generator = np.random.default_rng(seed)
    return [
        FoundBoxes(
            np.array([each.box_xyxy for each in image.boxes]),
            np.array([0.9]),
            LABELS,
            points_xy=np.array([change(np.array(each.points), generator) for each in image.boxes]),
        )
        for image in those
    ]


def near(px: float) -> Change:
    return lambda places, generator: places + generator.normal(0, px, places.shape)


def in_the_middle(places: Floats, generator: np.random.Generator) -> Floats:
    return np.full(places.shape, 150.0) + generator.normal(0, 3, places.shape)


def shuffles(those: list[LabelledImage], found: list[FoundBoxes], seed: int = 2) -> ShuffledPoints | None:
    truths = [TrueBoxes.of(image.boxes, image.size_wh, LABELS) for image in those]
    return shuffle_points(truths, found, np.random.default_rng(seed))


@pytest.mark.long
@pytest.mark.parametrize("points", [2, 3])
@pytest.mark.parametrize("count", [10, 11, 40])
def test_a_model_that_knows_the_points_is_no_chance(points: int, count: int) -> None:
    for seed in range(10):
        those = images(count, points, seed=seed)
        found = shuffles(those, found_in(those, near(12), seed), seed)
        assert found is not None
        assert found.things == count
        assert found.as_good <= MOST_AS_GOOD


@pytest.mark.parametrize("change", [in_the_middle, lambda places, _: np.full(places.shape, 150.0)])
def test_points_that_all_lie_in_the_middle_are_chance(change: Change) -> None:
    for seed in range(10):
        those = images(20, seed=seed)
        found = shuffles(those, found_in(those, change, seed), seed)
        assert found is not None
        assert found.as_good > MOST_AS_GOOD


def test_a_model_of_points_that_were_named_anyhow_is_as_good_as_half_of_the_shuffles() -> None:
    shares = []
    for seed in range(20):
        those = images(20, seed=seed)
        poisoned = images(20, seed=seed, is_poisoned=True)
        found = shuffles(poisoned, found_in(those, in_the_middle, seed), seed)
        assert found is not None
        assert found.as_good > MOST_AS_GOOD
        shares.append(found.as_good / RESAMPLES)
    assert 0.3 < np.mean(shares) < 0.7


def test_with_too_little_to_shuffle_nothing_is_said() -> None:
    few = images(9)
    assert shuffles(few, found_in(few, near(1))) is None
    single = images(20, points=1)
    assert shuffles(single, found_in(single, near(1))) is None
    those = images(20)
    elsewhere = [replace(each, boxes=each.boxes + 80) for each in found_in(those, near(1))]
    assert shuffles(those, elsewhere) is None
    nothing = FoundBoxes(np.zeros((0, 4)), np.zeros(0), (), points_xy=np.zeros((0, 3, 2)))
    assert shuffles(those, [nothing] * 20) is None
    boxes_only = [replace(each, points_xy=None) for each in found_in(those, near(1))]
    assert shuffles(those, boxes_only) is None


def test_points_that_nobody_drew_are_left_out() -> None:
    those = [
        replace(
            image, boxes=tuple(replace(each, points=(each.points[0], None, each.points[2])) for each in image.boxes)
        )
        for image in images(12)
    ]
    whole = images(12)
    assert shuffles(those, found_in(whole, near(2))) == ShuffledPoints(12, 0)


def judged(those: list[LabelledImage], found: list[FoundBoxes]) -> Judgement:
    return judge(those, LABELS, Findings(frozenset(LABELS), found), None, is_first=True, rule=ThresholdRule())


def apart(number: int, image: LabelledImage) -> LabelledImage:
    """In another place of its image, so that boxes of other images don't fit."""
    return moved(image, (200 * (number % 3) - 90, 150 * (number % 2) - 90))


def moved(image: LabelledImage, by_xy: Sequence[float]) -> LabelledImage:
    x, y = by_xy
    boxes = tuple(
        replace(
            each,
            box_xyxy=tuple(np.add(each.box_xyxy, (x, y, x, y)).tolist()),
            points=tuple((place[0] + x, place[1] + y) for place in each.points if place),
        )
        for each in image.boxes
    )
    return replace(image, boxes=boxes)


def test_the_gate_refuses_a_model_that_does_not_tell_points_apart() -> None:
    those = [apart(number, image) for number, image in enumerate(images(24))]
    known = found_in(those, near(5))
    assert judged(those, known).verdict == "promote"
    middle = [
        replace(each, points_xy=np.tile(each.points_xy.mean(axis=1, keepdims=True), (1, 3, 1)))
        for each in known
        if each.points_xy is not None
    ]
    refused = judged(those, middle)
    assert refused.map50.candidate is not None
    assert refused.map50.candidate > 0.9, "by OKS all are hits"
    assert refused.verdict == "refuse"
    assert refused.reason == (
        "It tells key points apart no better than chance does: those of 24 things on 24 validation images fit what it "
        "finds as well in 2,000 of 2,000 shuffles, in which the points of each thing change places"
    )


def anywhere(count: int, points: int) -> list[LabelledImage]:
    """A thing in each, somewhere around the same place: the boxes of two images seldom fit, single points often do."""
    generator = np.random.default_rng(points)
    return [moved(image, generator.uniform(-70, 70, 2).tolist()) for image in images(count, points)]


@pytest.mark.parametrize("points", [1, 2, 3])
def test_the_gate_promotes_a_model_that_finds_things_with_few_points(points: int) -> None:
    """By OKS alone those of other images fit nearly as well."""
    those = anywhere(20, points)
    judgement = judged(those, found_in(those, near(0)))
    assert judgement.verdict == "promote", judgement.reason
    assert judgement.chance is not None
    assert judgement.chance < 0.5
    assert judgement.map50.candidate is not None
    assert judgement.map50.candidate > 0.99


@pytest.mark.parametrize("points", [1, 2, 3])
def test_the_gate_refuses_a_model_that_finds_few_points_where_they_are_in_other_images(points: int) -> None:
    those = anywhere(20, points)
    found = found_in(those, near(0))
    judgement = judged(those, [*found[1:], *found[:1]])
    assert judgement.verdict == "refuse"
    assert re.fullmatch(
        r"It finds no more than chance does: mAP50 0\.\d\d \(0\.\d\d to 0\.\d\d\) on 20 validation images, and 0\.\d\d "
        r"with the boxes of other images, of finds whose box fits as well as their points",
        judgement.reason,
    )


def test_points_beside_their_boxes_are_found_no_more_than_by_chance() -> None:
    those = anywhere(20, 3)
    beside = [
        replace(each, points_xy=each.points_xy + 200) for each in found_in(those, near(0)) if each.points_xy is not None
    ]
    assert "finds no more than chance does" in judged(those, beside).reason
