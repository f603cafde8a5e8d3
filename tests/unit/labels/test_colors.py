"""Colors of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from yolo_backend.labels.colors import label_color, text_color_on


def rgb(color: str) -> NDArray[np.int_]:
    return np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])


def test_no_two_labels_have_one_color() -> None:
    assert len({label_color(number) for number in range(600)}) == 600


def test_the_first_ones_are_far_apart() -> None:
    colors = [rgb(label_color(number)) for number in range(12)]
    distances = [np.abs(one - other).sum() for index, one in enumerate(colors) for other in colors[:index]]
    assert min(distances) > 90


def test_text_can_be_read_on_any_of_them() -> None:
    for number in range(100):
        color = label_color(number)
        assert np.abs(rgb(color) - rgb(text_color_on(color))).sum() > 200
