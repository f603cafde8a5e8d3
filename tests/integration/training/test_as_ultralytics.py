"""Matches and average precision are Ultralytics' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils.metrics import OKS_SIGMA, ap_per_class, box_iou, kpt_iou

from tests.harness.findings import LABELS, box, recorded
from yolo_backend.training.found import FoundBoxes
from yolo_backend.training.matching import IOUS, TrueBoxes, match_all
from yolo_backend.training.oks import similarities
from yolo_backend.training.scores import as_they_are, average_precisions, score

Case = tuple[list[TrueBoxes], list[FoundBoxes]]


def ultralytics_average_precisions(truths: list[TrueBoxes], found: list[FoundBoxes]) -> NDArray[np.float64]:
    """Of each of `LABELS` that has a box, in their order, at ten IoUs."""
    matcher = BaseValidator.__new__(BaseValidator)  # its matching alone
    matcher.iouv = torch.linspace(0.5, 0.95, 10)

    def numbers(labels: tuple[str, ...]) -> NDArray[np.int64]:
        return np.array([LABELS.index(label) for label in labels], np.int64)

    correct = []
    for those, truth in zip(found, truths, strict=True):
        iou = box_iou(torch.from_numpy(truth.boxes_xyxy), torch.from_numpy(those.boxes))
        classes = torch.from_numpy(numbers(those.labels)), torch.from_numpy(numbers(truth.labels))
        correct.append(matcher.match_predictions(*classes, iou).numpy())
    scores = np.concatenate([those.scores for those in found])
    found_ids = np.concatenate([numbers(those.labels) for those in found])
    true_ids = np.concatenate([numbers(truth.labels) for truth in truths])
    order = np.argsort(-scores, kind="stable")  # theirs leaves open which of two equal scores is first
    scores = scores - 1e-9 * np.argsort(order)
    precisions: NDArray[np.float64] = ap_per_class(np.concatenate(correct), scores, found_ids, true_ids)[5]
    return precisions


def a_recorded_case(model: str) -> Case:
    those = recorded()
    truths = [TrueBoxes.of(image.boxes, image.size_wh, LABELS) for image in those.images]
    return truths, list(those.better.images if model == "better" else those.worse.images)


def a_random_case(seed: int) -> Case:
    """Boxes found at random near those that are there, or anywhere; some images have none of either."""
    generator = np.random.default_rng(seed)
    truths: list[TrueBoxes] = []
    found: list[FoundBoxes] = []
    for _ in range(generator.integers(1, 40)):
        corners = generator.uniform(0, 500, (generator.integers(0, 9), 2))
        places = np.concatenate([corners, corners + generator.uniform(10, 120, corners.shape)], axis=1)
        labels = generator.choice(LABELS[: generator.integers(1, 4)], len(places)).tolist()
        truths.append(TrueBoxes.of(map(box, labels, places.tolist()), (640, 640), LABELS))
        near = np.repeat(places, generator.integers(0, 4), axis=0)
        near = near + generator.normal(0, 6, near.shape)
        far = generator.uniform((0, 0, 300, 300), (300, 300, 600, 600), (generator.integers(0, 6), 4))
        boxes = np.concatenate([near, far])
        names = generator.choice(LABELS, len(boxes)).tolist()
        names[: len(near)] = np.repeat(labels, len(near) // max(len(labels), 1)).tolist()
        scores = -np.sort(-generator.uniform(0.01, 1, len(boxes)))
        order = generator.permutation(len(boxes))
        found.append(FoundBoxes(boxes[order], scores, tuple(names[index] for index in order)))
    return truths, found


@pytest.mark.parametrize("case", [a_recorded_case("better"), a_recorded_case("worse"), *map(a_random_case, range(40))])
def test_average_precisions_are_ultralytics(case: Case) -> None:
    truths, found = case
    matches = {label: those for label, those in match_all(truths, found, LABELS).items() if those.boxes}
    expected = ultralytics_average_precisions(truths, found) if matches else np.zeros((0, len(IOUS)))
    ours = [average_precisions(those, as_they_are(len(truths)))[0] for those in matches.values()]
    assert len(ours) == len(expected)
    np.testing.assert_allclose(np.array(ours).reshape(-1, len(IOUS)), expected, rtol=0, atol=1e-6)


def test_the_means_are_ultralytics() -> None:
    truths, found = a_recorded_case("better")
    scores = score(match_all(truths, found, LABELS), as_they_are(len(truths)))
    expected = ultralytics_average_precisions(truths, found)
    assert scores.map50().value == pytest.approx(expected[:, 0].mean(), abs=1e-6)
    assert scores.map50_95().value == pytest.approx(expected.mean(), abs=1e-6)


@pytest.mark.parametrize("points", [1, 3, 17])
def test_key_points_are_as_alike_as_ultralytics_says(points: int) -> None:
    generator = np.random.default_rng(points)
    drawn_xy = generator.uniform(0, 400, (8, points, 2))
    found_xy = np.concatenate([drawn_xy + generator.normal(0, spread, drawn_xy.shape) for spread in (1, 8, 30)])
    areas_px = generator.uniform(400, 40_000, 8)
    are_drawn = generator.random((8, points)) < 0.7
    are_drawn[0] = False
    numbers = torch.from_numpy(np.concatenate([drawn_xy, 2.0 * are_drawn[..., None]], axis=-1))
    sigmas = OKS_SIGMA if points == 17 else np.ones(points) / points
    expected = kpt_iou(numbers, torch.from_numpy(found_xy), torch.from_numpy(areas_px * 0.53), sigmas.tolist())
    ours = similarities(found_xy, np.where(are_drawn[..., None], drawn_xy, np.nan), areas_px)
    np.testing.assert_allclose(ours, expected.T, rtol=0, atol=1e-6)
    assert (ours > 0.5).any()
    assert ours[:, 0].max() == 0
