"""What is missing for a model is told before anything is fitted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.harness.findings import labelled
from yolo_backend.training.checks import check_classes
from yolo_backend.training.collected import Collected
from yolo_backend.training.errors import TrainingError
from yolo_backend.training.labelled import LabelledImage, Snapshot
from yolo_backend.training.records import Side

CATS = [replace(labelled(number, [("cat", (10, 10, 90, 90))]), look=0xFFFF << 8 * number) for number in range(4)]
NOTHING = [replace(labelled(number, []), look=0xFFFF << 8 * number) for number in range(4, 6)]


def collected(val: list[LabelledImage], kind: str = "detect") -> Collected:
    images = (*CATS, *NOTHING)
    sides: dict[str, Side] = {image.digest: "val" if image in val else "train" for image in images}
    return Collected.of(Snapshot(images, ("cat", "dog")), [], sides, (), kind)


@pytest.mark.parametrize(("kind", "thing"), [("detect", "box"), ("segment", "region"), ("pose", "box")])
def test_where_all_that_was_drawn_validates_nothing_can_be_learnt(kind: str, thing: str) -> None:
    told = f"No image that could be trained on has a {thing}, because .*: label and submit images of other scenes or gr"
    with pytest.raises(TrainingError, match=told):
        check_classes(collected(CATS, kind))


def test_one_image_with_a_box_is_something_to_learn() -> None:
    one = collected(CATS[1:])
    check_classes(one)
    assert one.classes.names == ("cat",)
