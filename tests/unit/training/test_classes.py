"""Classes: their order is fixed at first sight."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolo_backend.training.classes import Classes, choose_classes, tells_sides
from yolo_backend.training.labelled import LabelledBox, LabelledImage


def image(*labels: str) -> LabelledImage:
    boxes = tuple(LabelledBox(label, (0, 0, 9, 9), (4.5, 4.5, 9, 9, 0)) for label in labels)
    return LabelledImage(1, 1, "a.jpg", "d", 0, Path("a.jpg"), (10, 10), boxes)


@pytest.mark.parametrize(
    ("drawn", "labels", "known", "chosen"),
    [
        ([], [], [], Classes((), (), ())),
        (["b", "a"], ["a", "b"], [], Classes(("a", "b"), ("a", "b"), ())),
        # The order is that of the first run, whatever the config's is now.
        (["b", "a"], ["a", "b"], ["b", "a"], Classes(("b", "a"), ("b", "a"), ())),
        (["b", "a", "c"], ["c", "a", "b"], ["b", "a"], Classes(("b", "a", "c"), ("b", "a", "c"), ())),
        # A label without a box has a place, and is no class.
        (["b"], ["a", "b"], [], Classes(("b",), ("a", "b"), ("a",))),
        (["b", "a"], ["a", "b"], ["a", "b"], Classes(("a", "b"), ("a", "b"), ())),
        # One that was taken out keeps its place, and has it again when it comes back.
        (["a", "c", "b"], ["a", "c"], ["a", "b"], Classes(("a", "c"), ("a", "b", "c"), ())),
        (["a", "c", "b"], ["c", "b", "a"], ["a", "b", "c"], Classes(("a", "b", "c"), ("a", "b", "c"), ())),
        # Two controls with the same label.
        (["a", "a"], ["a", "b", "a"], [], Classes(("a",), ("a", "b"), ("b",))),
    ],
)
def test_classes(drawn: list[str], labels: list[str], known: list[str], chosen: Classes) -> None:
    assert choose_classes([image(*drawn), image()], labels, known) == chosen


@pytest.mark.parametrize(
    ("labels", "says_so"),
    [
        (["left hand", "right hand"], True),
        (["Hand_LEFT"], True),
        (["leftHand"], True),
        (["turn-right"], True),
        (["left2"], True),
        (["copyright", "bright", "leftover", "Upright"], False),
        (["nut"], False),
    ],
)
def test_labels_that_say_left_or_right(labels: list[str], says_so: bool) -> None:
    assert tells_sides(labels) is says_so
