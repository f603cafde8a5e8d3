"""Kinds of controls: one that exists in tests only is read, mapped, made regions of, drawn, counted and imported."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from tests.fakes.ellipses import EllipseControl, ellipse_config, serve_ellipses
from tests.harness.pictures import encode
from yolo_backend.detection.detections import Detections
from yolo_backend.labels.controls import table
from yolo_backend.labels.controls.ellipses import EllipseControl as OurEllipseControl
from yolo_backend.labels.drawing import draw_regions
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.label_map import map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.regions import count_boxes, make_regions, region_label, task_score
from yolo_backend.protocol import Region
from yolo_backend.registering.imported_labels import add_labels
from yolo_backend.registering.label_files import read_labels

CONFIG = ellipse_config("", "car", "bus")
WITH_PUPILS = ellipse_config('model_pupil="true"', "car", "bus")


@pytest.fixture(autouse=True)
def ellipses(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_ellipses(monkeypatch)


def control_of(config: str) -> EllipseControl:
    (control,) = parse_labeling_config(config).controls
    assert isinstance(control, EllipseControl)
    return control


def regions_of(config: str, item_index: int | None = None) -> list[Region]:
    """Of a car in the middle of an image of 200x100, a bus beside it, and a class without a label."""
    boxes = np.array([[50, 25, 150, 75], [-90, 0, -10, 50], [0, 0, 20, 20], [10, 10, 30, 30]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7, 0.1], np.float32), np.array([0, 1, 2, 0], np.int64))
    control = control_of(config)
    label_map = map_labels(control, {0: "car", 1: "bus", 2: "dog"}, 0.25)
    return make_regions(found, control, label_map, (200, 100), item_index)


def test_no_two_kinds_share_a_tag_or_a_type_of_region() -> None:
    tags = [tag for kind in table.KINDS for tag in kind.tags]
    types = [type_ for kind in table.KINDS for type_ in kind.region_types]
    assert len(set(tags)) == len(tags)
    assert len(set(types)) == len(types)


def test_it_reads_its_tag_and_what_all_have_in_common() -> None:
    control = control_of(ellipse_config('model_pupil="true" model_score_threshold="0.6" model_path="x.pt"', "car"))
    assert (control.from_name, control.to_name, control.value, control.tag) == (
        "round",
        "image",
        "$image",
        "ellipselabels",
    )
    assert (control.has_pupil, control.score_threshold, control.model_path) == (True, 0.6, "x.pt")
    assert [label.value for label in control.labels] == ["car"]
    assert pickle.loads(pickle.dumps(control)) == control  # as it goes to other machines


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (ellipse_config('model_square="true"'), 'EllipseLabels "round" is square, which no ellipse is'),
        (ellipse_config('model_path="../x.pt"'), "model_path should be the bare name of a file"),
        (ellipse_config('model_skip="true"'), 'Every control that could be served has model_skip="true"'),
        (
            f"<View><Repeater>{ellipse_config()}</Repeater></View>",
            'EllipseLabels "round" is inside a Repeater, which takes no predictions',
        ),
        (
            ellipse_config().replace("<Image", "<Text"),
            'EllipseLabels "round" is on the Text "image": only an Image is looked at',
        ),
    ],
)
def test_why_it_cannot_be_served_is_said(config: str, sentence: str) -> None:
    with pytest.raises(LabelingConfigError) as raised:
        parse_labeling_config(config)
    assert sentence in str(raised.value)


def test_it_is_served_beside_rectangles() -> None:
    rectangles = '<RectangleLabels name="boxes" toName="image"><Label value="car"/></RectangleLabels></View>'
    config = parse_labeling_config(CONFIG.replace("</View>", rectangles))
    assert [control.from_name for control in config.controls] == ["round", "boxes"]
    assert config.not_served == ()


def test_its_regions_have_what_all_regions_have() -> None:
    (region,) = regions_of(CONFIG, item_index=3)
    assert region["value"] == {
        "x": 50, "y": 50, "radiusX": 25, "radiusY": 25, "rotation": 0, "ellipselabels": ["car"]
    }  # fmt: skip
    assert (region["from_name"], region["to_name"], region["type"]) == ("round", "image", "ellipselabels")
    assert (region["original_width"], region["original_height"], region["item_index"]) == (200, 100, 3)
    assert region["score"] == pytest.approx(0.9)
    assert region_label(region) == "car"
    prediction = {"result": [region], "score": task_score([region]), "model_version": "test"}
    assert LabelInterface(CONFIG).validate_prediction(prediction, return_errors=True) == []


def test_parts_of_one_thing_are_counted_once() -> None:
    whole, pupil = regions_of(WITH_PUPILS)
    assert pupil["parentID"] == whole["id"] != pupil["id"]
    assert count_boxes([whole, pupil]) == 1
    assert count_boxes([*regions_of(WITH_PUPILS), *regions_of(CONFIG)]) == 2


def test_it_is_drawn_as_it_says() -> None:
    grey = Image.new("RGB", (200, 100), (128, 128, 128))
    (region,) = regions_of(CONFIG)
    drawn = np.asarray(draw_regions(grey, [region]))
    changed = (drawn != 128).any(axis=2)
    sides = [(50, 50), (50, 150), (75, 100)]  # rows and columns: left, right, bottom
    for row, column in sides:
        assert changed[row - 2 : row + 3, column - 2 : column + 3].any()
    corners_of_its_box = [changed[25:33, 50:58], changed[67:76, 142:151]]
    assert not any(corner.any() for corner in corners_of_its_box)
    assert not changed[45:55, 95:105].any()


def test_boxes_of_other_systems_become_its_regions(tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(encode(Image.new("RGB", (200, 100))))
    box = {"label": "car", "x": 50, "y": 25, "width": 100, "height": 50}
    (tmp_path / "old.jsonl").write_text(json.dumps({"image": "a.png", "boxes": [{**box, "score": 0.9}, box]}))

    (item,) = add_labels([photo], read_labels(tmp_path / "old.jsonl"), control_of(WITH_PUPILS), "old").items

    (prediction,) = item.predictions
    assert LabelInterface(WITH_PUPILS).validate_prediction(prediction, return_errors=True) == []
    assert [region["value"]["radiusX"] for region in prediction["result"]] == [25, 10, 25, 10]
    assert [region.get("score") for region in prediction["result"]] == [0.9, 0.9, None, None]
    assert count_boxes(prediction["result"]) == 2


def test_without_its_entry_in_the_table_its_tag_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    parse_labeling_config.cache_clear()
    (control,) = parse_labeling_config(CONFIG).controls
    assert type(control) is OurEllipseControl
    monkeypatch.setattr(table, "KINDS", ())
    parse_labeling_config.cache_clear()
    with pytest.raises(LabelingConfigError, match="has no control on an Image that can be served"):
        parse_labeling_config(CONFIG)
    parse_labeling_config.cache_clear()


def test_a_control_with_other_labels_stays_of_its_kind() -> None:
    control = control_of(CONFIG)
    assert table.kind_of(replace(control, labels=())) is table.kind_of_tag("ellipselabels")
