"""Thresholds: a label's own, the control's, the trained model's, the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from yolo_backend.labels.control import Label
from yolo_backend.labels.label_map import map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config

CLASSES = {0: "newt", 1: "toad", 2: "frog", 3: "tree frog"}
TRAINED = {"newt": 0.5, "toad": 0.125, "frog": 0.375}


def thresholds(labels: str, attributes: str = "", trained: Mapping[str, float] | None = TRAINED) -> dict[str, float]:
    """By the names of the classes; the default is 0.25."""
    (control,) = parse_labeling_config(
        f'<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image" {attributes}>{labels}'
        "</RectangleLabels></View>"
    ).controls
    mapped = map_labels(control, CLASSES, 0.25, trained)
    return {CLASSES[number]: threshold for number, threshold in mapped.threshold_of_class.items()}


OWN = '<Label value="newt" model_score_threshold="0.75"/><Label value="toad"/><Label value="tree frog"/>'


def test_a_label_s_own_comes_first_then_the_trained_model_s_then_the_default() -> None:
    assert thresholds(OWN) == {"newt": 0.75, "toad": 0.125, "tree frog": 0.25}


def test_a_control_s_own_comes_before_the_trained_model_s() -> None:
    assert thresholds(OWN, 'model_score_threshold="0.625"') == {"newt": 0.75, "toad": 0.625, "tree frog": 0.625}


def test_a_threshold_of_nothing_is_one() -> None:
    assert thresholds('<Label value="newt" model_score_threshold="0"/>') == {"newt": 0}
    assert thresholds('<Label value="newt"/>', trained={"newt": 0}) == {"newt": 0}
    assert thresholds('<Label value="newt"/>', 'model_score_threshold="0"') == {"newt": 0}


@pytest.mark.parametrize("trained", [{}, None])
def test_weights_without_thresholds_are_served_as_before(trained: Mapping[str, float] | None) -> None:
    assert thresholds(OWN, trained=trained) == {"newt": 0.75, "toad": 0.25, "tree frog": 0.25}


def test_the_trained_model_s_goes_by_the_class_and_not_by_the_label() -> None:
    assert thresholds('<Label value="Molch" predicted_values="newt"/><Label value="TOAD"/>') == {
        "newt": 0.5,
        "toad": 0.125,
    }


def test_the_classes_of_one_label_have_the_lowest_of_theirs() -> None:
    assert thresholds('<Label value="frogs" predicted_values="newt, frog"/>') == {"newt": 0.375, "frog": 0.375}
    assert thresholds('<Label value="frogs" predicted_values="frog, tree frog"/>') == {"frog": 0.25, "tree frog": 0.25}
    with_own = '<Label value="frogs" predicted_values="newt, frog" model_score_threshold="0.9"/>'
    assert thresholds(with_own) == {"newt": 0.9, "frog": 0.9}


def test_two_labels_of_one_name_keep_their_own() -> None:
    """As tasks may bring them."""
    (control,) = parse_labeling_config(
        '<View><Image name="i" value="$image"/><RectangleLabels name="l" toName="i" value="$labels"/></View>'
    ).controls
    labels = (Label("x", ("newt",), (), 0.75), Label("x", ("toad",), (), 0.5), Label("x", ("frog",)))
    mapped = map_labels(replace(control, labels=labels), CLASSES, 0.25, TRAINED)
    assert dict(mapped.threshold_of_class) == {0: 0.75, 1: 0.5, 2: 0.375}
