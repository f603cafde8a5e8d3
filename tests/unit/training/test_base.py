"""Which weights a training begins with, and what they know of the labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolo_backend.detection.weights import WeightsError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.settings import Settings, load_settings
from yolo_backend.training.base import find_base, known_classes


def settings(bccd_weights: Path, name: str = "bccd.pt") -> Settings:
    return load_settings(model_name=name, model_root=bccd_weights.parent)


def test_without_a_base_it_is_that_of_the_settings(bccd_weights: Path) -> None:
    assert find_base(None, settings(bccd_weights)) == bccd_weights


def test_the_demos_weights_are_a_base(bccd_weights: Path) -> None:
    assert find_base("demo", settings(bccd_weights)).name == "demo.pt"


def test_only_the_operator_may_name_a_path(bccd_weights: Path, tmp_path: Path) -> None:
    elsewhere = load_settings(model_root=tmp_path)
    assert find_base(str(bccd_weights), elsewhere, may_be_path=True) == bccd_weights
    with pytest.raises(WeightsError, match="bare file name"):
        find_base(str(bccd_weights), elsewhere)


def test_an_export_is_refused_with_what_is_needed(bccd_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cells.onnx").write_bytes(b"\x08\x09:\x00")
    with pytest.raises(WeightsError, match=r"cells\.onnx is an export, .* name the \.pt that it was made of"):
        find_base("cells.onnx", load_settings(model_root=tmp_path))


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"mine\.pt are not in MODEL_ROOT"):
        find_base("mine.pt", load_settings(model_root=tmp_path, model_name="other.pt"))


def test_labels_begin_with_the_classes_that_become_them() -> None:
    config = """<View><Image name="image" value="$image"/>
      <RectangleLabels name="one" toName="image">
        <Label value="Vehicle" predicted_values="car, truck"/><Label value="person"/><Label value="Unheard of"/>
      </RectangleLabels>
      <RectangleLabels name="two" toName="image"><Label value="person"/><Label value="bus"/></RectangleLabels></View>"""
    names = {0: "truck", 1: "person", 2: "car", 3: "bus", 4: "dog"}
    assert known_classes(parse_labeling_config(config).controls, names) == {
        "Vehicle": (0, 2),
        "person": (1,),
        "bus": (3,),
    }
