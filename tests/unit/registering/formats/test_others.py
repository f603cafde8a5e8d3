"""labelme, CreateML, Label Studio's own JSON, and how formats are told apart."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import encode_rle

from tests.harness.pictures import encode
from tests.unit.registering.formats.files import only, read, write
from yolo_backend.registering.label_files import read_labels
from yolo_backend.registering.objects import (
    BOX,
    ELLIPSE,
    MASK,
    POINTS,
    POLYGON,
    ROTATED,
    WHOLE,
    LabelFileError,
)


def labelme(*shapes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "version": "5.4.1", "flags": {}, "shapes": [{"label": "RBC", "group_id": None, **shape} for shape in shapes],
        "imagePath": "..\\photos\\a.jpg", "imageData": None, "imageHeight": 100, "imageWidth": 200, **changes,
    }  # fmt: skip


@pytest.mark.parametrize("path", [".", "a.json", "other.json"])
def test_a_file_of_labelme(tmp_path: Path, path: str) -> None:
    shape = {"points": [[100, 60], [10, 20]], "shape_type": "rectangle"}
    write(tmp_path, {"a.json" if path == "." else path: labelme(shape)})

    thing = only(tmp_path / path)

    assert (thing.label, thing.shape, thing.box_xyxy) == ("RBC", BOX, (10, 20, 100, 60))


def test_the_shapes_of_labelme(tmp_path: Path) -> None:
    bitmap = np.zeros((10, 20), np.uint8)
    bitmap[2:5, 3:9] = 255
    shapes: list[dict[str, Any]] = [
        {"points": [[10, 20], [50, 20], [30, 60]], "shape_type": "polygon"},
        {"points": [[10, 20], [50, 20], [30, 60]], "shape_type": None},
        {"points": [[50, 50], [50, 60]], "shape_type": "circle"},
        {"points": [[50, 50]], "shape_type": "point"},
        {"points": [[30, 20], [49, 29]], "shape_type": "mask", "mask": base64.b64encode(encode(bitmap)).decode()},
        {"points": [[100, 20], [140, 60], [100, 100], [60, 60]], "shape_type": "rotation"},
    ]
    write(tmp_path, {"a.json": labelme(*shapes)})

    polygon, unnamed, circle, point, mask, rotated = read(tmp_path / "a.json").found

    assert [polygon.shape, unnamed.shape, circle.shape] == [POLYGON, POLYGON, ELLIPSE]
    assert circle.box_xywhr == (50, 50, 20, 20, 0)
    assert (point.shape, point.points, point.has_box) == (POINTS, ((50, 50, 1),), False)
    assert (mask.shape, mask.box_xyxy) == (MASK, (33, 22, 39, 25))
    assert (rotated.shape, rotated.box_xyxy) == (ROTATED, (60, 20, 140, 100))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"points": [[1, 2], [3, 4]], "shape_type": "line"}, "shape 1 is a line, which no control of an image holds"),
        ({"points": [[1, 2], [3, 4], [5, 6]], "shape_type": "linestrip"}, "shape 1 is a linestrip, which no control"),
        ({"points": [[1, 2]], "shape_type": "rectangle"}, "shape 1: a rectangle has 2 points at least, not 1"),
        ({"points": [[1, 2], [3, 4]], "shape_type": "mask", "mask": "nothing!"}, "shape 1: its mask can't be read"),
        ({"points": [[1, 2], [3, 4]], "shape_type": "mask", "mask": "AAAA"}, "shape 1: its mask can't be read"),
        ({"points": [[1, "x"]], "shape_type": "point"}, "shape 1: points.0.1: Input should be a valid number"),
        ({"shape_type": "point"}, "shape 1: points: Field required"),
    ],
)
def test_an_odd_shape_of_labelme_is_told(tmp_path: Path, shape: dict[str, Any], message: str) -> None:
    good = {"points": [[100, 60], [10, 20]], "shape_type": "rectangle"}
    write(tmp_path, {"a.json": labelme(shape, good)})

    of_image = read(tmp_path / "a.json")

    assert len(of_image.found) == 1
    assert message in of_image.odd[0]


def test_a_file_of_createml_counts_from_the_center(tmp_path: Path) -> None:
    annotation = {"label": "RBC", "coordinates": {"x": 50, "y": 50, "width": 40, "height": 20}}
    odd = [{"label": "RBC"}, annotation | {"coordinates": {"x": "left"}}, 7]
    images = [{"image": "a.jpg", "annotations": [annotation, *odd]}, {"image": "b.jpg", "annotations": []}, 7]
    write(tmp_path, {"_annotations.createml.json": images, "a.jpg": "", "README.dataset.txt": "cells"})

    for path in (tmp_path, tmp_path / "_annotations.createml.json"):  # Roboflow puts it beside the images
        of_image = read(path)
        (thing,) = of_image.found
        assert (thing.label, thing.shape, thing.box_xyxy) == ("RBC", BOX, (30, 40, 70, 60))
        assert [told.partition(".json: ")[2] for told in of_image.odd] == [
            "entry 2: Input should be an object",
            "entry 0: annotation 1: coordinates: Field required",
            "entry 0: annotation 2: coordinates.x: Input should be a valid number, unable to parse string as a number",
            "entry 0: annotation 3: Input should be an object",
        ]
        assert read(path, "b.jpg").found == []


def task(*regions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A task of Label Studio's export, of an upload of 200x100."""
    result = [
        {"id": str(number), "to_name": "image", "original_width": 200, "original_height": 100, **region}
        for number, region in enumerate(regions)
    ]
    data = {"image": "/data/upload/4/cb0618f6-a.jpg", "note": "x"}
    return {"id": 1, "data": data, "annotations": [{"id": 5, "result": result}], "predictions": [], **changes}


RECTANGLE = {
    "type": "rectanglelabels",
    "from_name": "label",
    "value": {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["RBC"]},
}


def region(type_: str, **value: Any) -> dict[str, Any]:
    return {"type": type_, "from_name": "x", "value": {**value, type_: ["RBC"]}}


def test_the_shapes_of_label_studio(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 4), np.uint8)
    pixels[20:30, 40:80] = (255, 0, 0, 255)
    write(
        tmp_path,
        {
            "export.json": [
                task(
                    RECTANGLE,
                    region("rectanglelabels", x=50, y=20, width=20, height=40, rotation=90),
                    region("polygonlabels", points=[[10, 10], [20, 10], [20, 40]], closed=True),
                    region("brushlabels", format="rle", rle=encode_rle(pixels.ravel())),
                    region("ellipselabels", x=50, y=50, radiusX=10, radiusY=20, rotation=0),
                    region("keypointlabels", x=50, y=50, width=0.3),
                    {"type": "choices", "from_name": "quality", "value": {"choices": ["good"]}},
                )
            ]
        },
    )

    box, rotated, polygon, mask, ellipse, point, choice = read(tmp_path / "export.json").found

    assert [thing.label for thing in (box, rotated, polygon, mask, ellipse, point)] == ["RBC"] * 6
    assert (box.shape, box.box_xyxy) == (BOX, (20, 10, 60, 30))
    assert rotated.shape == ROTATED
    assert rotated.box_xyxy == pytest.approx((60, 20, 100, 60))
    assert (polygon.shape, polygon.outlines) == (POLYGON, (((20, 10), (40, 10), (40, 40)),))
    assert (mask.shape, mask.box_xyxy) == (MASK, (40, 20, 80, 30))
    assert (ellipse.shape, ellipse.box_xywhr) == (ELLIPSE, (100, 50, 40, 40, 0))
    assert (point.shape, point.points) == (POINTS, ((100, 50, 1),))
    assert (choice.shape, len(choice.regions)) == (WHOLE, 1)


def test_regions_of_one_id_are_one_object(tmp_path: Path) -> None:
    """As a Labels with a Rectangle beside it stores them, and as what is said about a region."""
    place = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0}
    parts = [
        {"id": "a", "type": "rectangle", "from_name": "place", "value": place},
        {"id": "a", "type": "labels", "from_name": "label", "value": {**place, "labels": ["RBC"]}},
        {"id": "a", "type": "choices", "from_name": "kind", "value": {**place, "choices": ["round"]}},
    ]
    write(tmp_path, {"export.json": [task(*parts)]})

    thing = only(tmp_path / "export.json")

    assert (thing.label, thing.shape, len(thing.regions)) == ("RBC", BOX, 3)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"annotations": [{"result": [], "was_cancelled": True}, {"result": [RECTANGLE]}]}, 1),
        ({"annotations": [{"result": []}, {"result": [RECTANGLE], "ground_truth": True}]}, 1),
        ({"annotations": [], "predictions": [{"result": [RECTANGLE]}]}, 1),
        ({"annotations": [{"result": None}]}, 0),
        ({"annotations": [{"result": 5}]}, 0),
        ({"annotations": 5, "predictions": {"a": 1}}, None),
        ({"annotations": [], "predictions": []}, None),
        ({"annotations": [{"result": [RECTANGLE], "was_cancelled": True}]}, None),
    ],
    ids=[
        "a skipped one",
        "the ground truth",
        "a prediction",
        "nothing there",
        "no list of regions",
        "no lists",
        "nobody labelled it",
        "all skipped",
    ],
)
def test_which_labels_of_a_task_count(tmp_path: Path, changes: dict[str, Any], found: int | None) -> None:
    size = {"original_width": 200, "original_height": 100}
    both = [each for name in ("annotations", "predictions") if isinstance(each := changes.get(name), list)]
    for each in [labels for several in both for labels in several if isinstance(labels["result"], list)]:
        each["result"] = [region | size for region in each["result"]]
    write(tmp_path, {"export.json": [task(**changes)]})

    labels = read_labels(tmp_path / "export.json").of([Path("a.jpg")])

    assert [len(each.boxes((200, 100))) for each in labels.values()] == ([] if found is None else [found])


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (region("rectanglelabels", x="left", y=1, width=1, height=1), "region 0: its place should be in numbers"),
        (region("polygonlabels", points=[[1, 2]]), "region 0: a polygon has three points at least"),
        (region("brushlabels", rle=[0, 0, 0, 1, 2]), "region 0: its brush can't be read: the RLE is of 1 values, and"),
        (region("brushlabels", rle=[0, 1, 56, 128, 2]), "region 0: its brush can't be read: the RLE ends too early"),
        (region("brushlabels", rle=["x"]), "region 0: its brush can't be read: an RLE is a list of bytes"),
        ({"type": "rectanglelabels", "value": None}, "region 0 has no value"),
    ],
)
def test_an_odd_region_is_told_and_costs_no_other(tmp_path: Path, odd: dict[str, Any], message: str) -> None:
    write(tmp_path, {"export.json": [task(odd, RECTANGLE), {"id": 2, "data": {}}, 7]})

    of_image = read(tmp_path / "export.json")

    assert len(of_image.found) == 1
    *others, told = of_image.odd
    assert others == [f"{tmp_path}/export.json: task 2 has no image in its data"] * 2
    assert told.startswith(f"{tmp_path}/export.json: task 1: {message}")


def on(tag: str, width: int, height: int, **more: Any) -> dict[str, Any]:
    return {**RECTANGLE, "to_name": tag, "original_width": width, "original_height": height, **more}


TWO = {"img1": "/data/upload/4/cb0618f6-a.jpg", "img2": "/data/upload/4/cb0618f6-b.jpg"}


@pytest.mark.parametrize(
    ("regions", "kept", "message"),
    [
        ([on("img2", 300, 300), on("img1", 200, 100)], 1, "region 0 is of another image of the task (img2)"),
        ([on("img1", 200, 100), on("img2", 200, 100)], 1, "region 1 is of another image of the task (img2)"),
        ([on("img2", 200, 100)], 0, "region 0 is of another image of the task (img2)"),
        ([on("right", 300, 300), on("left", 200, 100)], 1, "region 0 is of another image of the task (right)"),
        (
            [on("left", 200, 100), on("right", 200, 100)],
            0,
            "region 0: which image of the task it is of can't be told: its tag is left, not img1",
        ),
        ([on("img1", 300, 300), on("img1", 200, 100)], 1, "region 0 is of an image of another size"),
        ([{"type": "choices", "to_name": "img2", "original_width": None, "value": {"choices": ["good"]}}], 0,
         "region 0 is of another image of the task (img2)"),
    ],
    ids=["other size", "same size", "the other only", "tags by size", "tags in doubt", "one tag", "an answer"],
)  # fmt: skip
def test_regions_of_another_image_of_the_task_are_odd(
    tmp_path: Path, regions: list[dict[str, Any]], kept: int, message: str
) -> None:
    write(tmp_path, {"export.json": [task(*regions, data=TWO)]})

    of_image = read(tmp_path / "export.json")

    assert [thing.box_xyxy for thing in of_image.found] == [(20, 10, 60, 30)] * kept
    assert of_image.odd[0] == f"{tmp_path}/export.json: task 1: {message}"
    assert len(of_image.found) + len(of_image.odd) == len(regions)


def test_two_tags_of_one_image_and_answers_about_a_text_are_kept(tmp_path: Path) -> None:
    about_text = {"type": "choices", "to_name": "note", "original_width": None, "value": {"choices": ["good"]}}
    write(tmp_path, {"export.json": [task(on("left", 200, 100), on("right", 200, 100), about_text)]})

    of_image = read(tmp_path / "export.json")

    assert ([thing.shape for thing in of_image.found], of_image.odd) == ([BOX, BOX, WHOLE], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "a.json is an empty list: it has no labels"),
        ([1, 2], "is a list of something else than labels: it should be YOLO, COCO"),
        ([{"image": "a.jpg", "label": [], "annotation_id": 1}], "is Label Studio's JSON-MIN, which lacks what tasks"),
        ({"a.jpg1": {"filename": "a.jpg", "regions": [], "size": 1}}, "of the VGG Image Annotator (VIA): export it"),
        ({"_via_img_metadata": {}}, "of the VGG Image Annotator (VIA): export it as COCO"),
        ({"size": {"height": 1}, "objects": []}, "is Supervisely's: export it as COCO or Pascal VOC"),
        ({"openlabel": {}}, "is OpenLABEL"),
        ({"type": "FeatureCollection", "features": []}, "is GeoJSON"),
        ({"id": 1, "data": {}}, "is one of Label Studio's tasks: put it in a list, as its export does"),
        ({"categories": []}, "is a list of classes, and no labels: give it with --classes"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, content: Any, message: str) -> None:
    write(tmp_path, {"a.json": content})

    with pytest.raises(LabelFileError) as caught:
        read_labels(tmp_path / "a.json")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": "", "b.xml": ""}, "has labels in several formats (1 .txt, 1 .xml): give a folder or a file of one"),
        ({"a.json": [], "b.json": []}, "a.json isn't labelme's, of which a folder may have many: give one file of"),
        ({"a.jpg": ""}, "has no labels: no .txt, .xml or .json file"),
        ({"a.xml": "<a/>", "b.xml": "<b/>"}, "a.xml is no Pascal VOC: it is XML with <a> (and so on: 2 files in"),
    ],
)
def test_a_folder_that_is_not_read_is_told(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    write(tmp_path, files)

    with pytest.raises(LabelFileError) as caught:
        read_labels(tmp_path)
    assert message in str(caught.value)


def test_json_is_known_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    rectangle = {"points": [[100, 60], [10, 20]], "shape_type": "rectangle"}
    write(tmp_path, {"coco.json": json.dumps([task(RECTANGLE)]), "export.json": labelme(rectangle)})

    assert only(tmp_path / "coco.json").box_xyxy == (20, 10, 60, 30)
    assert only(tmp_path / "export.json").box_xyxy == (10, 20, 100, 60)
