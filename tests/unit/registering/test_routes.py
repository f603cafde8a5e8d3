"""Where objects go, and what is told of what is lost on the way: controls of boxes hold the boxes around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image as PillowImage

from tests.harness.pictures import encode
from tests.harness.studio_client import BCCD_CONFIG
from tests.unit.registering.formats.files import write
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.registering.imported_labels import Labelled, add_labels
from yolo_backend.registering.label_files import read_labels
from yolo_backend.registering.objects import LabelFileError
from yolo_backend.registering.target import choose_controls

QUALITY = '<Choices name="quality" toName="image"><Choice value="good"/><Choice value="bad"/></Choices>'


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An image of 200x100."""
    path = tmp_path / "a.png"
    path.write_bytes(encode(PillowImage.new("RGB", (200, 100))))
    return path


def add(path: Path, photo: Path, config: str = BCCD_CONFIG, version: str | None = "old") -> Labelled:
    controls = choose_controls(config, None, for_labels=True)
    labels = read_labels(path)
    return add_labels([photo], labels, controls[0], version, others=controls[1:], label_config=config)


def regions_of(labelled: Labelled) -> list[Any]:
    (item,) = labelled.items
    both: list[Any] = [*item.predictions, *item.annotations]
    (labels,) = both
    return list(labels["result"])


def test_polygons_become_boxes_around_them_and_it_is_told_once(tmp_path: Path, photo: Path) -> None:
    write(
        tmp_path, {"classes.txt": "RBC", "labels/a.txt": "0 0.1 0.1 0.5 0.1 0.5 0.9\n0 0.2 0.1 0.5 0.1 0.5 0.9 0.6\n"}
    )

    labelled = add(tmp_path / "labels", photo)

    first, second = regions_of(labelled)
    assert first["value"] == {"x": pytest.approx(10), "y": pytest.approx(10), "width": pytest.approx(40),
                              "height": pytest.approx(80), "rotation": 0, "rectanglelabels": ["RBC"]}  # fmt: skip
    assert (first.get("score"), second["score"]) == (None, 0.6)
    assert dict(labelled.told) == {
        "polygons became the boxes around them: the project has no PolygonLabels with their labels": 2
    }


def test_rotated_boxes_stay_rotated(tmp_path: Path, photo: Path) -> None:
    corners = [(100, 20), (130, 50), (110, 70), (80, 40)]
    line = " ".join(f"{x / 200} {y / 100}" for x, y in corners)
    write(tmp_path, {"classes.txt": "RBC", "labels/a.txt": f"0 {line}"})

    labelled = add(tmp_path / "labels", photo)

    (region,) = regions_of(labelled)
    assert region["value"]["rotation"] % 90 == pytest.approx(45, abs=0.01)
    assert not labelled.told


def test_corners_of_no_rectangle_are_told(tmp_path: Path, photo: Path) -> None:
    write(tmp_path, {"classes.txt": "RBC", "labels/a.txt": "0 0.1 0.1 0.5 0.1 0.5 0.9 0.3 0.5"})

    labelled = add(tmp_path / "labels", photo)

    assert list(labelled.told) == [
        "rotated boxes whose corners are no rectangle became the smallest rectangles around them"
    ]


def test_a_rotated_box_whose_corners_are_off_the_image_is_told(tmp_path: Path, photo: Path) -> None:
    corners = [(100, -70), (220, 50), (100, 170), (-20, 50)]
    line = " ".join(f"{x / 200} {y / 100}" for x, y in corners)
    write(tmp_path, {"classes.txt": "RBC", "labels/a.txt": f"0 {line}"})

    labelled = add(tmp_path / "labels", photo)

    (region,) = regions_of(labelled)
    assert {key: region["value"][key] for key in ("x", "y", "width", "height", "rotation")} == {
        "x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0
    }  # fmt: skip
    assert list(labelled.told) == [
        "rotated boxes became the boxes around them, because all their corners are off the image"
    ]


def pose(**changes: Any) -> dict[str, Any]:
    """A COCO file of an image of 200x100 with one RBC with key points, in a box."""
    annotation = {
        "id": 1,
        "image_id": 7,
        "category_id": 3,
        "bbox": [20, 10, 40, 20],
        "keypoints": [30, 15, 2, 50, 25, 2],
    }
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 200, "height": 100}],
        "annotations": [annotation | changes],
        "categories": [{"id": 3, "name": "RBC", "keypoints": ["nose", "tail"]}],
    }


def test_key_points_are_left_out_where_only_their_box_can_be_held(tmp_path: Path, photo: Path) -> None:
    write(tmp_path, {"a.json": pose()})

    labelled = add(tmp_path / "a.json", photo)

    assert [region["value"]["x"] for region in regions_of(labelled)] == [10]
    assert list(labelled.told) == [
        "objects with key points became their boxes: the project has no KeyPointLabels with their labels"
    ]


def test_key_points_without_a_box_can_not_be_held(tmp_path: Path, photo: Path) -> None:
    bare = pose(bbox=[])
    write(tmp_path, {"a.json": bare})
    boxed = bare["annotations"][0] | {"bbox": [20, 10, 40, 20], "keypoints": [], "id": 2}
    write(tmp_path, {"both.json": bare | {"annotations": [*bare["annotations"], boxed]}})

    labelled = add(tmp_path / "both.json", photo)

    assert len(regions_of(labelled)) == 1
    assert dict(labelled.told) == {
        "objects with key points are left out: the project has no KeyPointLabels with their labels": 1
    }
    with pytest.raises(
        LabelFileError, match=r"a\.json: none of its objects can be registered: objects with key points"
    ):
        add(tmp_path / "a.json", photo)


def test_an_image_all_of_whose_labels_are_lost_is_not_said_to_be_empty(tmp_path: Path, photo: Path) -> None:
    other = tmp_path / "b.png"
    other.write_bytes(photo.read_bytes())
    write(tmp_path, {"classes.txt": "RBC", "labels/a.txt": "0 0.5 0.5 0.1 0.1", "labels/b.txt": "0 0.5"})
    (control,) = parse_labeling_config(BCCD_CONFIG).controls

    labelled = add_labels([photo, other], read_labels(tmp_path / "labels"), control, None)

    assert [len(item.annotations) for item in labelled.items] == [1, 0]
    assert dict(labelled.told) == {"images have no labels, because none of theirs can be registered": 1}


def test_a_class_whose_name_another_label_only_folds_to_is_no_label(tmp_path: Path, photo: Path) -> None:
    """A label named exactly like a class takes no other class that is like it."""
    config = BCCD_CONFIG.replace(
        '<Label value="RBC"/><Label value="WBC"/><Label value="Platelets"/>', '<Label value="x"/>'
    )
    file = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 100}],
        "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "x-"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [10, 10, 50, 50]}],
    }
    write(tmp_path, {"fold_x_minus.json": file})

    with pytest.raises(LabelFileError, match='annotation 1: "x-" is no label of "label", which has x'):
        add(tmp_path / "fold_x_minus.json", photo, config)


def exported(*regions: dict[str, Any]) -> list[dict[str, Any]]:
    size = {"to_name": "image", "original_width": 200, "original_height": 100, "image_rotation": 0}
    result = [{"id": f"r{number}", **size, **region} for number, region in enumerate(regions)]
    return [{"id": 1, "data": {"image": "/data/upload/4/cb0618f6-a.png"}, "annotations": [{"result": result}]}]


RECTANGLE: dict[str, Any] = {
    "type": "rectanglelabels",
    "from_name": "label",
    "value": {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 3.5, "rectanglelabels": ["RBC"]},
}
CHOICE = {"type": "choices", "from_name": "ch", "value": {"choices": ["good"]}}
COMMENT = {"type": "textarea", "from_name": "comment", "value": {"text": ["seen"]}}


def test_what_label_studio_exported_is_taken_as_it_is_where_the_config_has_it(tmp_path: Path, photo: Path) -> None:
    config = BCCD_CONFIG.replace("</View>", QUALITY.replace('"quality"', '"ch"') + "</View>")
    write(tmp_path, {"export.json": exported(RECTANGLE, CHOICE)})

    labelled = add(tmp_path / "export.json", photo, config, version=None)

    first, second = regions_of(labelled)
    assert first["value"] == RECTANGLE["value"]
    assert (first["id"], second["from_name"], second["value"]) == ("r0", "ch", {"choices": ["good"]})
    assert not labelled.told
    prediction = {"result": [first, second], "model_version": "x"}
    assert LabelInterface(config).validate_prediction(prediction, return_errors=True) == []


def several(*labels: str, kind: str = "rectanglelabels", from_name: str = "other") -> dict[str, Any]:
    place = {key: value for key, value in RECTANGLE["value"].items() if key != "rectanglelabels"}
    return {"type": kind, "from_name": from_name, "value": {**place, kind: list(labels)}}


def test_each_label_of_a_region_is_kept(tmp_path: Path, photo: Path) -> None:
    """In a control of another name there is a box for each."""
    write(tmp_path, {"export.json": exported(several("RBC", "WBC", "RBC"), several("Platelets"))})

    labelled = add(tmp_path / "export.json", photo)

    assert [region["value"]["rectanglelabels"] for region in regions_of(labelled)] == [["RBC"], ["WBC"], ["Platelets"]]
    assert len({region["id"] for region in regions_of(labelled)}) == 3
    assert dict(labelled.told) == {"objects with several labels became one for each label": 1}
    assert not labelled.items[0].lost


def test_a_region_with_several_labels_stays_as_it_is_in_its_own_control(tmp_path: Path, photo: Path) -> None:
    write(tmp_path, {"export.json": exported(several("RBC", "WBC", from_name="label"))})

    labelled = add(tmp_path / "export.json", photo)

    assert [region["value"]["rectanglelabels"] for region in regions_of(labelled)] == [["RBC", "WBC"]]
    assert not labelled.told


def test_a_further_label_of_a_region_that_the_project_lacks_is_told(tmp_path: Path, photo: Path) -> None:
    write(tmp_path, {"export.json": exported(several("RBC", "Dog"))})

    with pytest.raises(LabelFileError, match='region r0: "Dog" is no label of "label", which has RBC, WBC, Platelets'):
        add(tmp_path / "export.json", photo)


def test_a_region_with_several_labels_off_its_image_is_listed(tmp_path: Path, photo: Path) -> None:
    far = several("RBC", "WBC")
    far["value"] |= {"x": 200}
    write(tmp_path, {"export.json": exported(far, several("RBC"))})

    labelled = add(tmp_path / "export.json", photo)

    assert len(regions_of(labelled)) == 1
    assert len(labelled.without_area) == 2
    assert not labelled.told


TURNED = (
    "objects are left out: their image was turned on the page when they were drawn (rotateControl), which isn't read: "
    "turn it back there, and export them again"
)


def test_regions_drawn_on_a_turned_image_are_left_out_where_they_would_be_converted(
    tmp_path: Path, photo: Path
) -> None:
    """Their numbers are those of the turned image, and so they would be elsewhere."""
    outline = {"points": [[10, 10], [20, 10], [20, 30]], "closed": True, "polygonlabels": ["RBC"]}
    regions = [several("RBC"), {"type": "polygonlabels", "from_name": "x", "value": outline}]
    tasks = exported(*regions, *regions)
    for region in tasks[0]["annotations"][0]["result"][:2]:
        region["image_rotation"] = 90
    write(tmp_path, {"export.json": tasks})

    labelled = add(tmp_path / "export.json", photo)

    assert [region["value"]["x"] for region in regions_of(labelled)] == [pytest.approx(10)] * 2
    assert dict(labelled.items[0].lost) == {TURNED: 2}
    assert not labelled.without_area


def test_an_image_all_of_whose_regions_were_drawn_on_it_turned_is_not_said_to_be_empty(
    tmp_path: Path, photo: Path
) -> None:
    tasks = exported({**several("RBC"), "image_rotation": 270})
    write(tmp_path, {"export.json": tasks})

    with pytest.raises(LabelFileError, match=r"none of its objects can be registered: objects are left out: their ima"):
        add(tmp_path / "export.json", photo)


def test_regions_drawn_on_a_turned_image_stay_as_they_are_in_their_own_control(tmp_path: Path, photo: Path) -> None:
    write(tmp_path, {"export.json": exported({**RECTANGLE, "image_rotation": 90})})

    labelled = add(tmp_path / "export.json", photo)

    ((region,), value) = regions_of(labelled), RECTANGLE["value"]
    assert (region["image_rotation"], region["value"]) == (90, value)
    assert not labelled.told


def test_an_answer_goes_to_the_only_control_of_its_type(tmp_path: Path, photo: Path) -> None:
    config = BCCD_CONFIG.replace("</View>", QUALITY + "</View>")
    write(tmp_path, {"export.json": exported({**RECTANGLE, "from_name": "other"}, CHOICE, COMMENT)})

    labelled = add(tmp_path / "export.json", photo, config)

    box, choice = regions_of(labelled)
    assert (box["from_name"], box["value"]["rectanglelabels"]) == ("label", ["RBC"])
    assert (choice["from_name"], choice["value"]) == ("quality", {"choices": ["good"]})
    assert dict(labelled.told) == {
        "answers about the whole image are left out: the project has no control of that name and type for them": 1
    }


def test_an_answer_that_the_control_does_not_have_is_left_out(tmp_path: Path, photo: Path) -> None:
    config = BCCD_CONFIG.replace("</View>", QUALITY + "</View>")
    write(tmp_path, {"export.json": exported(RECTANGLE, {**CHOICE, "value": {"choices": ["blurred"]}})})

    labelled = add(tmp_path / "export.json", photo, config)

    assert [region["type"] for region in regions_of(labelled)] == ["rectanglelabels"]
    assert sum(labelled.told.values()) == 1


def test_where_nothing_can_be_read_nothing_is_registered(tmp_path: Path, photo: Path) -> None:
    write(tmp_path, {"classes.txt": "RBC", "labels/a.txt": "0 0.5\n0 x\n"})

    with pytest.raises(LabelFileError, match=r"a\.txt:1 should be .* \(and 1 more that can't be read\)$"):
        add(tmp_path / "labels", photo)


def test_an_odd_line_is_kept_to_be_told(tmp_path: Path, photo: Path) -> None:
    boxes = [{"label": "RBC", "x": 1, "y": 1, "width": 5, "height": 5}, {"label": "RBC"}]
    write(tmp_path, {"old.jsonl": json.dumps({"image": "a.png", "boxes": boxes})})

    labelled = add(tmp_path / "old.jsonl", photo)

    assert len(regions_of(labelled)) == 1
    assert labelled.odd == [f"{tmp_path}/old.jsonl:1: boxes.1.x: Field required"]


def test_labels_know_an_image_by_what_it_was_made_of(tmp_path: Path, photo: Path) -> None:
    boxes = [{"label": "RBC", "x": 1, "y": 1, "width": 5, "height": 5}]
    write(tmp_path, {"old.jsonl": json.dumps({"image": "scans/a.tif", "boxes": boxes})})
    (control,) = parse_labeling_config(BCCD_CONFIG).controls
    labels = read_labels(tmp_path / "old.jsonl")

    (item,) = add_labels([photo], labels, control, "old", originals={photo: Path("scans/a.tif")}).items

    assert item.image == photo
    assert len(item.predictions[0]["result"]) == 1


SHAPES = """<View><Image name="image" value="$image"/>
  <RectangleLabels name="boxes" toName="image"><Label value="RBC"/></RectangleLabels>
  <PolygonLabels name="outlines" toName="image"><Label value="RBC"/></PolygonLabels>
  <BrushLabels name="masks" toName="image"><Label value="RBC"/></BrushLabels>
  <EllipseLabels name="ellipses" toName="image"><Label value="RBC"/></EllipseLabels></View>"""


def control_of(labelled: Labelled) -> list[str]:
    return [region["from_name"] for region in regions_of(labelled)]


def test_each_shape_goes_to_its_control_as_it_was_drawn(tmp_path: Path, photo: Path) -> None:
    percent: list[list[float]] = [[10.5, 10.25], [20, 10], [20.125, 40]]
    outline = [value for x, y in percent for value in (x * 2, y)]
    rle = {"size": [100, 200], "counts": [2010, 30, 70, 30, 17_860]}
    of_image = {"image_id": 1, "category_id": 1}
    file = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 100}],
        "categories": [{"id": 1, "name": "RBC"}],
        "annotations": [
            of_image | {"bbox": [10, 10, 50, 50]},
            of_image | {"segmentation": [outline]},
            of_image | {"segmentation": rle},
        ],
    }
    ellipse = {"label": "RBC", "points": [[100, 50], [100, 70]], "shape_type": "circle"}
    write(tmp_path, {"a.json": file, "other/a.json": {"shapes": [ellipse], "imagePath": "a.png"}})

    labelled, circle = add(tmp_path / "a.json", photo, SHAPES), add(tmp_path / "other" / "a.json", photo, SHAPES)

    assert control_of(labelled) == ["boxes", "outlines", "masks"]
    _, polygon, brush = regions_of(labelled)
    assert polygon["value"]["points"] == [pytest.approx(point, abs=0.001) for point in percent]
    pixels = decode_rle(brush["value"]["rle"]).reshape(100, 200, 4)[..., 3] > 0
    assert np.argwhere(pixels).min(axis=0).tolist() == [10, 20]
    assert np.argwhere(pixels).max(axis=0).tolist() == [39, 21]
    assert control_of(circle) == ["ellipses"]
    assert {key: regions_of(circle)[0]["value"][key] for key in ("x", "y", "radiusX", "radiusY")} == pytest.approx(
        {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20}, abs=0.01
    )
    assert not labelled.told
    assert not circle.told


def test_each_part_of_a_polygon_becomes_one(tmp_path: Path, photo: Path) -> None:
    parts = [[20, 10, 60, 10, 40, 30], [100, 50, 120, 50, 120, 90]]
    file = pose(segmentation=parts, keypoints=[])
    write(tmp_path, {"a.json": file})

    labelled = add(tmp_path / "a.json", photo, SHAPES)

    assert control_of(labelled) == ["outlines"] * 2
    assert dict(labelled.told) == {"polygons in several parts became a polygon for each part": 1}


OUTLINE = [[20, 10, 60, 10, 40, 30]]
RLE = {"size": [100, 200], "counts": [2010, 30, 70, 30, 17_860]}
ONE_KIND = """<View><Image name="image" value="$image"/>
  <{tag} name="one" toName="image"><Label value="RBC"/></{tag}></View>"""


@pytest.mark.parametrize("has_box", [True, False])
@pytest.mark.parametrize(
    ("segmentation", "tag"), [(OUTLINE, "PolygonLabels"), (OUTLINE, "BrushLabels"), (RLE, "BrushLabels")]
)
def test_what_was_drawn_beside_key_points_is_kept_where_they_can_not_be(
    tmp_path: Path, photo: Path, segmentation: Any, tag: str, has_box: bool
) -> None:
    """The regions are those of the same object without key points, and the loss of these is told."""
    bbox = [20, 10, 40, 20] if has_box else []
    write(tmp_path, {"a.json": pose(segmentation=segmentation, bbox=bbox)})
    write(tmp_path, {"bare.json": pose(segmentation=segmentation, bbox=bbox, keypoints=[])})
    config = ONE_KIND.format(tag=tag)

    labelled, bare = add(tmp_path / "a.json", photo, config), add(tmp_path / "bare.json", photo, config)

    assert [region["value"] for region in regions_of(labelled)] == [region["value"] for region in regions_of(bare)]
    becomes = "polygons" if tag == "PolygonLabels" else "masks"
    assert dict(labelled.told) == {
        f"objects with key points became {becomes}: the project has no KeyPointLabels with their labels": 1
    }


def test_an_outline_in_parts_beside_key_points_is_kept_and_boxes_stay_theirs(tmp_path: Path, photo: Path) -> None:
    parts = [*OUTLINE, [100, 50, 120, 50, 120, 90]]
    write(tmp_path, {"a.json": pose(segmentation=parts)})

    assert control_of(add(tmp_path / "a.json", photo, SHAPES)) == ["outlines"] * 2
    (box,) = regions_of(add(tmp_path / "a.json", photo))
    assert (box["value"]["x"], box["value"]["width"]) == (pytest.approx(10), pytest.approx(20))


def test_key_points_with_an_outline_stay_key_points_where_they_can_be_held(tmp_path: Path, photo: Path) -> None:
    write(tmp_path, {"a.json": pose(segmentation=OUTLINE), "bare.json": pose()})
    config = KEY_POINTS.format(more=ONE_KIND.format(tag="PolygonLabels").split("\n")[1].removesuffix("</View>"))

    labelled, bare = add(tmp_path / "a.json", photo, config), add(tmp_path / "bare.json", photo, config)

    assert [region["value"] for region in regions_of(labelled)] == [region["value"] for region in regions_of(bare)]
    assert "points" in control_of(labelled)
    assert dict(labelled.told) == {NO_BOX: 1}


KEY_POINTS = """<View><Image name="image" value="$image"/>
  <KeyPointLabels name="points" toName="image">
    <Label value="Nose" predicted_values="RBC" model_index="0"/>
    <Label value="Tail" predicted_values="RBC" model_index="1"/>
  </KeyPointLabels>{more}</View>"""
BOXES = '<RectangleLabels name="{name}" toName="image"><Label value="RBC"/></RectangleLabels>'


@pytest.mark.parametrize("name", ["points_bbox", "cells"])
def test_key_points_go_to_their_labels_and_their_box_to_its_own(tmp_path: Path, photo: Path, name: str) -> None:
    write(tmp_path, {"a.json": pose()})

    labelled = add(tmp_path / "a.json", photo, KEY_POINTS.format(more=BOXES.format(name=name)))

    found = {region["from_name"]: region for region in regions_of(labelled)}
    points = [region for region in regions_of(labelled) if region["from_name"] == "points"]
    assert [(each["value"]["keypointlabels"], each["value"]["x"], each["value"]["y"]) for each in points] == [
        (["Nose"], pytest.approx(15), pytest.approx(15)),
        (["Tail"], pytest.approx(25), pytest.approx(25)),
    ]
    assert found[name]["value"]["width"] == pytest.approx(20)
    assert not labelled.told


NOSE = """<View><Image name="image" value="$image"/>
  <KeyPointLabels name="points" toName="image"><Label value="Nose" predicted_values="RBC" model_index="0"/>
  </KeyPointLabels>{more}</View>"""
NO_LABEL_OF_POINT = "key points are left out: no label of the project is for them (model_index, predicted_values)"
NO_BOX = "boxes of objects with key points are left out: the project has no RectangleLabels with their labels"
OFF = "key points are left out: they are off their images"
THREE_POINTS = "0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.4 0.4 1 0.6 0.6 2 0 0 0"


@pytest.mark.parametrize(
    ("line", "more", "count", "told"),
    [
        (THREE_POINTS, "", 1, {NO_LABEL_OF_POINT: 2, NO_BOX: 1}),
        (THREE_POINTS, BOXES.format(name="cells"), 2, {NO_LABEL_OF_POINT: 2}),
        (THREE_POINTS, BOXES.format(name="points_bbox"), 2, {NO_LABEL_OF_POINT: 2}),
        (THREE_POINTS, BOXES.format(name="points_bbox").replace("RBC", "x"), 1, {NO_LABEL_OF_POINT: 2, NO_BOX: 1}),
        ("0 0.9 0.5 0.2 0.2 1.1 0.5 2", BOXES.format(name="cells"), 1, {OFF: 1}),
        ("0 0.5 0.5 0.2 0.2 0.5 0.5 2", BOXES.format(name="cells"), 2, {}),
    ],
    ids=["no boxes", "boxes", "their boxes", "no label of their boxes", "off the image", "all is there"],
)
def test_which_key_points_and_boxes_are_left_out_is_told(
    tmp_path: Path, photo: Path, line: str, more: str, count: int, told: dict[str, int]
) -> None:
    write(tmp_path, {"classes.txt": "RBC", "labels/a.txt": line})

    labelled = add(tmp_path / "labels", photo, NOSE.format(more=more))

    assert len(regions_of(labelled)) == count
    (item,) = labelled.items
    assert (dict(item.lost), dict(item.told)) == (told, {})


def test_an_object_none_of_whose_key_points_has_a_label_has_an_area(tmp_path: Path, photo: Path) -> None:
    """It isn't told as a box off its image."""
    write(tmp_path, {"classes.txt": "RBC", "labels/a.txt": f"{THREE_POINTS}\n0 0.5 0.5 0.2 0.2 0 0 0 0.4 0.4 2 0 0 0"})

    labelled = add(tmp_path / "labels", photo, NOSE.format(more=""))

    assert dict(labelled.told) == {NO_LABEL_OF_POINT: 3, NO_BOX: 2}
    assert labelled.without_area == []


def test_where_no_key_point_has_a_label_nothing_is_registered(tmp_path: Path, photo: Path) -> None:
    write(tmp_path, {"classes.txt": "RBC", "labels/a.txt": "0 0.5 0.5 0.2 0.2 0 0 0 0.4 0.4 2"})

    with pytest.raises(LabelFileError, match=r"none of its objects can be registered: key points are left out: no lab"):
        add(tmp_path / "labels", photo, NOSE.format(more=""))


def test_named_key_points_that_no_label_is_named_like_are_told(tmp_path: Path, photo: Path) -> None:
    file = pose(keypoints=[30, 15, 2, 50, 25, 2, 60, 30, 2])
    file |= {"categories": [{"id": 3, "name": "default", "keypoints": ["Tail", "Ear"]}]}
    write(tmp_path, {"a.json": file})

    labelled = add(tmp_path / "a.json", photo, KEY_POINTS.format(more=""))

    assert [each["value"]["keypointlabels"] for each in regions_of(labelled)] == [["Tail"]]
    assert dict(labelled.told) == {NO_LABEL_OF_POINT: 2}


def test_key_points_that_are_not_there_are_no_regions(tmp_path: Path, photo: Path) -> None:
    write(tmp_path, {"a.json": pose(keypoints=[0, 0, 0, 50, 25, 1])})

    labelled = add(tmp_path / "a.json", photo, KEY_POINTS.format(more=""))

    assert [region["value"]["keypointlabels"] for region in regions_of(labelled)] == [["Tail"]]


def test_single_key_points_go_by_the_names_of_labels(tmp_path: Path, photo: Path) -> None:
    """Whatever number the label has among the points of a model."""
    shapes = [{"label": name, "points": [[x, 50]], "shape_type": "point"} for name, x in (("tail", 20), ("Nose", 40))]
    write(tmp_path, {"a.json": {"shapes": shapes, "imagePath": "a.png"}})

    labelled = add(tmp_path / "a.json", photo, KEY_POINTS.format(more=BOXES.format(name="points_bbox")))

    assert [(each["value"]["keypointlabels"], each["value"]["x"]) for each in regions_of(labelled)] == [
        (["Tail"], pytest.approx(10)),
        (["Nose"], pytest.approx(20)),
    ]


def test_key_points_of_a_class_that_is_no_label_go_by_their_own_names(tmp_path: Path, photo: Path) -> None:
    """As Label Studio exports all those of an image: their class is `default`."""
    file = pose(bbox=[0, 0, 0, 0]) | {"categories": [{"id": 3, "name": "default", "keypoints": ["Tail", "Nose"]}]}
    write(tmp_path, {"a.json": file})

    labelled = add(tmp_path / "a.json", photo, KEY_POINTS.format(more=""))

    assert [(each["value"]["keypointlabels"], each["value"]["x"]) for each in regions_of(labelled)] == [
        (["Tail"], pytest.approx(15)),
        (["Nose"], pytest.approx(25)),
    ]


def test_a_project_of_choices_takes_its_own_export(tmp_path: Path, photo: Path) -> None:
    quality = QUALITY.replace("<Choices ", '<Choices model_presence="true" ')
    config = f'<View><Image name="image" value="$image"/>{quality}</View>'
    write(tmp_path, {"export.json": exported(CHOICE)})

    labelled = add(tmp_path / "export.json", photo, config)

    assert [(region["from_name"], region["value"]) for region in regions_of(labelled)] == [
        ("quality", {"choices": ["good"]})
    ]


@pytest.mark.parametrize(
    ("corners", "control"),
    [
        ([(100, 20), (130, 50), (110, 70), (80, 40)], "boxes"),
        ([(20, 10), (100, 10), (100, 90), (60, 50)], "outlines"),
    ],
    ids=["a rectangle", "a polygon of four points"],
)
def test_four_corners_go_where_they_stay_as_they_are(
    tmp_path: Path, photo: Path, corners: list[tuple[float, float]], control: str
) -> None:
    line = " ".join(f"{x / 200} {y / 100}" for x, y in corners)
    write(tmp_path, {"classes.txt": "RBC", "labels/a.txt": f"0 {line}"})

    labelled = add(tmp_path / "labels", photo, SHAPES)

    assert control_of(labelled) == [control]
    assert not labelled.told
