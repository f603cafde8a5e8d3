"""The exporter: what it makes lighter stays the same, and an export whose boxes aren't the weights' is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from ultralytics.nn.modules.block import DFL

from tests.harness.detections import MakeWeights
from yolo_backend.detection.exporting import check_agreement, export, lighten
from yolo_backend.detection.models import UltralyticsModel

Spoil = Callable[[torch.Tensor], torch.Tensor]


class Spoiled:
    """A real model whose rows are changed on their way out."""

    def __init__(self, model: UltralyticsModel, spoil: Spoil) -> None:
        self._model = model
        self._spoil = spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, for_person: bool = False) -> Any:
        rows, *others = self._model(images, for_person=for_person)
        return [self._spoil(rows.clone()), *others]


def small_model(weights: Path) -> UltralyticsModel:
    model = UltralyticsModel(weights, "cpu")
    model.image_size = (160, 160)  # quicker than its own
    return model


def add(number: float, channel: int) -> Spoil:
    """To the last row of the last image: each one counts. Channels 0 to 3 are a box, 4 to 6 scores."""

    def spoil(rows: torch.Tensor) -> torch.Tensor:
        rows[-1, channel, -1] += number
        return rows

    return spoil


@pytest.fixture(scope="module")
def expected(bccd_weights: Path) -> UltralyticsModel:
    return small_model(bccd_weights)


@pytest.mark.parametrize("spoil", [add(0, 0), add(0.9, 0), add(-0.9, 3), add(0.009, 4), add(-0.009, 6)])
def test_what_is_near_enough_agrees(expected: UltralyticsModel, spoil: Spoil) -> None:
    check_agreement(expected, Spoiled(expected, spoil))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (add(2, 0), "boxes by 2 px"),
        (add(-2, 3), "boxes by 2 px"),
        (add(0.02, 4), "scores by 0.02"),
        (add(-0.02, 6), "scores by 0.02"),
        (add(float("nan"), 1), "boxes by nan px"),
        (add(float("nan"), 5), "scores by nan"),
        (add(float("inf"), 2), "boxes by inf px"),
        (lambda rows: rows[:, :-1], r"gives \(1, 6, 525\), the weights \(1, 7, 525\)"),
        (lambda rows: rows[..., :-1], r"gives \(1, 7, 524\), the weights \(1, 7, 525\)"),
        (lambda rows: torch.zeros(300, 6), "gives"),
        (torch.zeros_like, "differs from the weights"),
    ],
)
def test_an_export_with_other_boxes_is_refused(expected: UltralyticsModel, spoil: Spoil, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as raised:
        check_agreement(expected, Spoiled(expected, spoil))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("of_person", [True, False])
def test_both_ways_of_running_an_export_are_held_against_the_weights(
    expected: UltralyticsModel, of_person: bool
) -> None:
    class SpoiledOneWay(Spoiled):
        def __call__(self, images: Sequence[NDArray[np.uint8]], *, for_person: bool = False) -> Any:
            return (super().__call__ if for_person == of_person else self._model)(images, for_person=for_person)

    with pytest.raises(ValueError, match="boxes by 2 px"):
        check_agreement(expected, SpoiledOneWay(expected, add(2, 0)))


def add_to_scores(number: float) -> Spoil:
    """Of weights without NMS: a row is a box, its score and its class."""

    def spoil(rows: torch.Tensor) -> torch.Tensor:
        rows[..., 4] += number
        return rows

    return spoil


def test_an_export_without_nms_with_other_scores_is_refused(make_weights: MakeWeights) -> None:
    expected = small_model(make_weights("yolo26n"))
    check_agreement(expected, Spoiled(expected, add_to_scores(0)))
    for number in (0.02, -0.02, float("nan")):
        with pytest.raises(ValueError, match="scores"):
            check_agreement(expected, Spoiled(expected, add_to_scores(number)))


# The mean of a distribution, without a softmax


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 1e4, 1e30])
@pytest.mark.parametrize("bins", [16, 8])
def test_distances_are_those_of_ultralytics(scale: float, bins: int) -> None:
    network = torch.nn.ModuleDict({"dfl": DFL(bins)})
    logits = torch.randn(2, 4 * bins, 100, generator=torch.Generator().manual_seed(0)) * scale
    expected = network["dfl"](logits)
    lighten(network)
    assert not isinstance(network["dfl"], DFL)
    torch.testing.assert_close(network["dfl"](logits), expected, rtol=0, atol=1e-5)


def test_a_head_without_distances_stays_as_it_is() -> None:
    network = torch.nn.ModuleDict({"dfl": torch.nn.Identity()})
    lighten(network)
    assert isinstance(network["dfl"], torch.nn.Identity)


@pytest.mark.parametrize("architecture", [None, "yolo11n-seg", "yolo11n-obb", "yolo11n-pose"])
def test_an_export_has_no_softmax_over_distances(
    bccd_weights: Path, make_weights: MakeWeights, tmp_path: Path, architecture: str | None
) -> None:
    made = tmp_path / "made.onnx"
    export(make_weights(architecture) if architecture else bccd_weights, made, "onnx", "cpu", 300)
    nodes = onnx.load(made).graph.node
    assert [node.name for node in nodes if node.op_type == "Softmax" and "dfl" in node.name] == []
    assert [node.op_type for node in nodes].count("Exp") == 1
