"""How boxes that were found are held against boxes that are right."""

from __future__ import annotations

import numpy as np

from yolo_backend.demo.evaluate import match_boxes
from yolo_backend.labels.polygons import iou_matrix


def test_iou_of_known_boxes() -> None:
    first = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], float)
    second = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], float)
    np.testing.assert_allclose(iou_matrix(first, second), np.array([[1, 1 / 3, 0], [0, 0, 0]]))


def test_each_box_is_matched_once_and_with_its_own_label() -> None:
    box = np.array([[0, 0, 10, 10]], float)
    twice = match_boxes(np.repeat(box, 2, axis=0), ["nut", "nut"], box, ["nut"])
    assert (twice.found, twice.there, twice.ious) == (2, 1, (1.0,))
    assert match_boxes(box, ["nut"], box, ["bolt"]).ious == ()
    assert match_boxes(np.zeros((0, 4)), [], box, ["bolt"]).mean_iou == 0.0
    assert match_boxes(box, ["nut"], np.zeros((0, 4)), []).ious == ()
