"""Non-maximum suppression: what stays is what Ultralytics lets stay, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ultralytics.utils import nms

from yolo_backend.detection.heads.suppression import suppress


def random_output(seed: int, classes: int, candidates: int, share: float) -> NDArray[np.float32]:
    """A model's output for one image, in which so many of the candidates have a score."""
    random = np.random.default_rng(seed)
    output = np.empty((4 + classes, candidates), np.float32)
    output[:2] = random.uniform(0, 640, (2, candidates))
    output[2:4] = random.uniform(1, 200, (2, candidates))
    output[4:] = random.random((classes, candidates)) * (random.random((classes, candidates)) < share)
    return output


def assert_as_ultralytics(output: NDArray[np.float32], score: float, iou: float, max_detections: int) -> int:
    """The number of boxes that stay."""
    tensor = torch.from_numpy(output[None].copy())
    (expected,) = nms.non_max_suppression(tensor, score, iou, max_det=max_detections, max_time_img=float("inf"))
    found = suppress(output, score, iou, max_detections)
    assert found.dtype == np.float32
    assert found.shape == tuple(expected.shape)
    assert found.tobytes() == expected.numpy().tobytes()
    return len(found)


@pytest.mark.parametrize("max_detections", [5, 300])
@pytest.mark.parametrize("iou", [0.0, 0.45, 0.7, 1.0])
@pytest.mark.parametrize("score", [0.0, 0.1, 0.25, 0.9])
@pytest.mark.parametrize(("classes", "share"), [(1, 0.5), (3, 0.02), (80, 0.001)])
def test_what_stays_is_what_ultralytics_lets_stay(
    classes: int, share: float, score: float, iou: float, max_detections: int
) -> None:
    counts = [
        assert_as_ultralytics(random_output(seed, classes, candidates, share), score, iou, max_detections)
        for seed, candidates in enumerate([21, 525, 2100])
    ]
    assert counts[-1] > 0


def test_of_equal_scores_the_same_one_stays() -> None:
    output = random_output(0, 3, 2100, 0.2)
    output[4:] = np.round(output[4:], 1)
    assert assert_as_ultralytics(output, 0.25, 0.3, 300) > 0


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    output = random_output(0, 2, 21, 0)
    output[4:, 3] = [0.25, 0.1]
    assert assert_as_ultralytics(output, 0.25, 0.7, 300) == 0
    output[5, 3] = np.nextafter(np.float32(0.25), np.float32(1))
    assert assert_as_ultralytics(output, 0.25, 0.7, 300) == 1


def test_without_a_candidate_there_are_no_rows() -> None:
    assert assert_as_ultralytics(random_output(0, 3, 2100, 0), 0.1, 0.7, 300) == 0


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_changes_nothing_else(number: float) -> None:
    output = random_output(0, 3, 525, 0.2)
    output[:4, ::50] = number
    output[4:, 7::50] = number if np.isnan(number) else 0
    assert assert_as_ultralytics(output, 0.1, 0.7, 300) > 0


def test_of_very_many_candidates_the_best_are_compared() -> None:
    assert assert_as_ultralytics(random_output(0, 1, 50_000, 1), 0.01, 0.7, 300) == 300
