"""What `train` says of a run that ended."""

from __future__ import annotations

import pytest

from yolo_backend.cli.train import _tell
from yolo_backend.training.records import Comparison, ImageCounts, LabelScore, Result
from yolo_backend.training.things import BOXES

IMAGES = ImageCounts(24, 8)


def told(result: Result, capsys: pytest.CaptureFixture[str]) -> list[str]:
    _tell(result, BOXES)
    return capsys.readouterr().out.splitlines()


def test_labels_that_were_refused_are_not_told_as_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(Result("4", False, "the labels of 5 of 8 validation images changed", None, IMAGES), capsys) == [
        "Run 4: nothing was trained, the labels of 5 of 8 validation images changed",
        "24 images to train on, 8 to validate with",
    ]


@pytest.mark.parametrize(("promoted", "serves"), [(True, "it serves"), (False, "it does not serve")])
def test_a_model_is_told_with_what_it_was_made_of(
    promoted: bool, serves: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"newt": LabelScore(12, 0.5, 0.75, 0.25)}
    result = Result("4", promoted, "mAP50 says so", None, IMAGES, labels, Comparison(candidate=0.5))
    assert told(result, capsys)[:3] == [
        f"Run 4: {serves}, mAP50 says so",
        "24 images trained on, 8 validated",
        "mAP50 0.500",
    ]
