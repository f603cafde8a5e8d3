"""Detections: chosen, moved and joined, with whatever else was found beside boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections, joined


def made_up(scores: list[float], *, rotated: bool = False, first: int = 0) -> Detections:
    """Numbered from `first`: so are its boxes, its classes, and what is beside them."""
    numbers = np.arange(first, first + len(scores))
    return Detections(
        np.repeat(numbers[:, None], 5 if rotated else 4, axis=1).astype(np.float32),
        np.array(scores, np.float32),
        numbers.astype(np.int64),
        rotated,
        {"points_xy": np.tile(numbers[:, None, None], (1, 3, 2)).astype(np.float32), "marks": numbers.astype(np.uint8)},
    )


def assert_numbered(found: Detections, numbers: list[int]) -> None:
    assert found.class_ids.tolist() == numbers
    assert found.boxes[:, 0].tolist() == numbers
    assert found.extras["points_xy"][:, 0, 0].tolist() == numbers
    assert found.extras["marks"].tolist() == numbers
    assert found.extras["marks"].dtype == np.uint8


@pytest.mark.parametrize("indices", [[2, 0], [], [1]])
def test_those_of_some_indices_keep_what_is_theirs(indices: list[int]) -> None:
    found = made_up([0.9, 0.8, 0.7], rotated=True).at(np.array(indices, np.int64))
    assert_numbered(found, indices)
    assert found.rotated
    assert len(found) == len(indices)


@pytest.mark.parametrize(
    ("rotated", "box"), [(False, [101, 11, 101, 11]), (True, [101, 11, 1, 1, 1])], ids=["xyxy", "xywhr"]
)
def test_moving_moves_all_places_and_nothing_else(rotated: bool, box: list[float]) -> None:
    found = made_up([0.9, 0.8], rotated=rotated)
    moved = found.moved((100, 10))
    assert moved.boxes[1].tolist() == box
    assert moved.extras["points_xy"][1].tolist() == [[101, 11]] * 3
    assert moved.extras["marks"].tolist() == [0, 1]
    assert [array.dtype for array in (moved.boxes, moved.extras["points_xy"])] == [np.float32] * 2
    assert_numbered(found, [0, 1])  # as before


def test_what_is_not_moved_is_not_copied() -> None:
    found = made_up([0.9])
    assert found.moved((0, 0)) is found
    assert joined([found]) is found


def test_joined_are_in_the_order_of_their_scores() -> None:
    found = joined([made_up([0.9, 0.5]), made_up([], first=7), made_up([0.7, 0.5, 0.1], first=2)])
    assert_numbered(found, [0, 2, 1, 3, 4])
    np.testing.assert_array_equal(found.scores, np.array([0.9, 0.7, 0.5, 0.5, 0.1], np.float32))


@pytest.mark.parametrize("values", [np.zeros((2, 3)), np.zeros(()), np.array([None, None, None])])
def test_extras_that_are_not_one_for_each_box_are_refused(values: NDArray[Any]) -> None:
    boxes = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match=r"masks are .* expected numbers, 3 times"):
        Detections(boxes, np.zeros(3, np.float32), np.zeros(3, np.int64), extras={"masks": values})
