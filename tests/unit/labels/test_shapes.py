"""Polygons, masks and ellipses: the regions of what was found, by weights of each kind, and their way onto pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray
from PIL import Image

from tests.harness.pictures import encode
from tests.unit.labels.masks import Bitmap, bitmaps, blobs, in_image, iou_of, size_wh_of
from yolo_backend.detection.detections import Detections, WeightsInfo
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.table import kind_of, kind_of_region
from yolo_backend.labels.drawing import draw_regions
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.label_map import map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.outlines import MIN_IOU, is_simple, mask_of, outlines_of
from yolo_backend.labels.regions import count_boxes, make_regions, region_label, task_score
from yolo_backend.protocol import Region
from yolo_backend.registering.imported_labels import add_labels
from yolo_backend.registering.label_files import read_labels

SIZE_WH = (200, 100)
SHAPES = ("Rectangle", "Polygon", "Brush", "Ellipse")


def config(shape: str, attributes: str = "", *, apart: bool = False) -> str:
    """A labeling config with one control of cars: one tag, or Labels with the shape beside it."""
    label = '<Label value="car"/>'
    tags = (
        f'<Labels name="kind" toName="image">{label}</Labels><{shape} name="place" toName="image" {attributes}/>'
        if apart
        else f'<{shape}Labels name="kind" toName="image" {attributes}>{label}</{shape}Labels>'
    )
    return f'<View><Image name="image" value="$image"/>{tags}</View>'


def control_of(label_config: str) -> Control:
    (control,) = parse_labeling_config(label_config).controls
    return control


def found(*masks: Mask, boxes: Any = None, rotated: bool = False) -> Detections:
    """Cars of falling scores, with these masks if there are any."""
    boxes = np.array([[0, 0, *SIZE_WH]] * len(masks) if boxes is None else boxes, np.float32)
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    return Detections(boxes, scores, np.zeros(len(boxes), np.int64), rotated, masks=masks or None)


def regions_of(label_config: str, detections: Detections, size_wh: tuple[int, int] = SIZE_WH) -> list[Region]:
    """The regions, which Label Studio's own judge takes."""
    control = control_of(label_config)
    regions = make_regions(detections, control, map_labels(control, {0: "car"}, 0.25), size_wh, None)
    prediction = {"result": regions, "score": task_score(regions), "model_version": "test"}
    assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []
    json.dumps(prediction, allow_nan=False)
    return regions


def pixels_of(region: Region, size_wh: tuple[int, int] = SIZE_WH) -> Bitmap:
    """The pixels of a polygon's or a brush's region."""
    value = region["value"]
    if "rle" in value:
        alpha = brush.decode_rle(value["rle"]).reshape(size_wh[1], size_wh[0], 4)[:, :, 3]
        return np.asarray(alpha > 127)
    return in_image(mask_of(points_of(region, size_wh), size_wh), size_wh)


def points_of(region: Region, size_wh: tuple[int, int] = SIZE_WH) -> NDArray[np.float64]:
    points = np.array(region["value"]["points"])
    assert points.shape[1:] == (2,)
    assert len(points) >= 3
    assert points.min() >= 0
    assert points.max() <= 100
    return points * size_wh / 100


def ring_and_dot() -> Mask:
    """A ring with a hole of a quarter of its area, and a dot beside it."""
    picture = np.zeros(SIZE_WH[::-1], np.uint8)
    cv2.circle(picture, (100, 50), 40, 1, -1)
    cv2.circle(picture, (100, 50), 18, 0, -1)
    cv2.rectangle(picture, (10, 10), (39, 29), 1, -1)
    return Mask.of_bitmap(picture.astype(np.bool_))


# Polygons


@pytest.mark.long
@given(blobs())
@settings(deadline=None, max_examples=40)
def test_a_polygon_is_its_mask_with_few_points(bitmap: Bitmap) -> None:
    size_wh = (bitmap.shape[1] + 7, bitmap.shape[0] + 4)
    mask = Mask.of_bitmap(bitmap, (5, 3))
    (region,) = regions_of(config("Polygon"), found(mask), size_wh)
    assert region["value"]["closed"] is True
    assert is_simple(points_of(region, size_wh))
    # Sides at 45 degrees pass through the middles of pixels: by rounding these are within or without.
    least = MIN_IOU - 0.005 if len(outlines_of(mask)) == 1 else MIN_IOU**2
    assert "meta" in region or iou_of(pixels_of(region, size_wh), in_image(mask, size_wh)) >= least


@given(bitmaps())
@settings(deadline=None)
def test_all_parts_of_a_mask_together_have_its_pixels(bitmap: Bitmap) -> None:
    size_wh = size_wh_of(bitmap)
    label_config = config("Polygon", 'model_parts="all" model_polygon_tolerance="0"')
    regions = regions_of(label_config, found(Mask.of_bitmap(bitmap)), size_wh)
    pixels = np.any([pixels_of(region, size_wh) for region in regions], axis=0)
    assert (pixels | ~bitmap).all()
    assert len({region["id"] for region in regions}) == len(regions)
    assert count_boxes(regions) == 1


def test_of_several_parts_the_largest_is_drawn_and_what_is_left_out_is_told() -> None:
    (region,) = regions_of(config("Polygon"), found(ring_and_dot()))
    left, top = points_of(region).min(axis=0)
    assert (left, top) == (60, 10)
    (remark,) = region["meta"]["text"]
    assert remark == (
        "holes of 22% of the mask are filled, because a polygon has none; smaller parts, 13% of the mask, are left "
        'out: model_parts="all" draws them'
    )


@pytest.mark.parametrize("apart", [False, True])
def test_all_parts_have_ids_of_their_own_and_the_first_is_their_parent(apart: bool) -> None:
    label_config = config("Polygon", 'model_parts="all"', apart=apart)
    mask = ring_and_dot()
    regions = regions_of(label_config, found(mask, mask))
    assert len(regions) == 4 * (1 + apart)
    by_id = {region["id"]: region for region in regions}
    assert len(by_id) == 4
    firsts = [id_ for id_, region in by_id.items() if "parentID" not in region]
    assert len(firsts) == count_boxes(regions) == 2
    for first in firsts:
        (second,) = (region for region in by_id.values() if region.get("parentID") == first)
        assert second["score"] == by_id[first]["score"]
        assert points_of(second).tolist() == [[10, 10], [10, 30], [40, 30], [40, 10]]
        assert "left out" not in by_id[first]["meta"]["text"][0]
        assert "meta" not in second
    assert {region_label(region) for region in regions if region["type"] != "polygon"} == {"car"}


def test_a_tolerance_of_ones_own() -> None:
    rows, columns = np.mgrid[:100, :200]
    mask = Mask.of_bitmap((rows - 50) ** 2 + (columns - 100) ** 2 <= 45**2)
    lengths = [
        len(regions_of(config("Polygon", f'model_polygon_tolerance="{tolerance}"'), found(mask))[0]["value"]["points"])
        for tolerance in (0, 1, 3, 10)
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 100
    assert lengths[-1] <= 8


def test_what_a_person_has_drawn_is_taken_as_it_is() -> None:
    drawn = (np.array([[10, 10], [60, 10], [60, 60]], np.float32), np.array([[0, 0], [1, 0], [1, 1]], np.float32))
    mask = Mask((0, 0, *SIZE_WH), Mask.of_bitmap(np.ones(SIZE_WH[::-1], np.bool_)).runs, drawn)
    (region,) = regions_of(config("Polygon"), found(mask))
    assert points_of(region).tolist() == drawn[0].tolist()
    both = regions_of(config("Polygon", 'model_parts="all"'), found(mask))
    assert [points_of(region).tolist() for region in both] == [part.tolist() for part in drawn]


def test_a_rotated_box_is_its_corners() -> None:
    (region,) = regions_of(config("Polygon"), found(boxes=[[100, 50, 40, 20, math.pi / 4]], rotated=True))
    half = math.sqrt(0.5)
    corners = [
        (100 + (x * half - y * half), 50 + (x * half + y * half))
        for x, y in ((-20, -10), (20, -10), (20, 10), (-20, 10))
    ]
    assert points_of(region) == pytest.approx(np.array(corners), abs=0.01)


@given(st.tuples(st.floats(-60, 260), st.floats(-60, 160), st.floats(0.5, 300), st.floats(0.5, 300), st.floats(-4, 4)))
@settings(deadline=None)
def test_rotated_boxes_anywhere_are_valid_polygons_and_ellipses(box: tuple[float, ...]) -> None:
    detections = found(boxes=[box], rotated=True)
    for region in regions_of(config("Polygon"), detections):
        points_of(region)
    for region in regions_of(config("Ellipse"), detections):
        value = region["value"]
        assert 0 < value["radiusX"] <= 50
        assert 0 < value["radiusY"] <= 50
        assert 0 <= value["x"] <= 100
        assert 0 <= value["y"] <= 100
        assert 0 <= value["rotation"] < 360


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_without_pixels_or_a_box_beside_the_image_becomes_no_region(shape: str) -> None:
    empty = Mask.of_bitmap(np.zeros((4, 4), np.bool_))
    boxes = np.array([[-20, -20, -5, -5]])
    assert regions_of(config(shape), found(empty, boxes=boxes)) == []
    assert regions_of(config(shape), found(boxes=boxes)) == []
    assert regions_of(config(shape), found(boxes=[[np.nan] * 5], rotated=True)) == []


# Brushes


@given(bitmaps(), st.tuples(*[st.integers(0, 5)] * 4))
@settings(deadline=None)
def test_a_brush_has_the_pixels_of_its_mask(bitmap: Bitmap, margins: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = margins
    size_wh = (bitmap.shape[1] + left + right, bitmap.shape[0] + top + bottom)
    mask = Mask.of_bitmap(bitmap, (left, top))
    (region,) = regions_of(config("Brush"), found(mask), size_wh)
    assert region["value"]["format"] == "rle"
    assert np.array_equal(pixels_of(region, size_wh), in_image(mask, size_wh))


# Ellipses


def test_an_ellipse_touches_the_sides_of_its_box() -> None:
    (region,) = regions_of(config("Ellipse"), found(boxes=[[20, 10, 120, 60]]))
    place = {"x": 35, "y": 35, "radiusX": 25, "radiusY": 25, "rotation": 0}
    assert region["value"] == {**place, "ellipselabels": ["car"]}


def test_a_rotated_ellipse_turns_clockwise_around_its_middle() -> None:
    (region,) = regions_of(config("Ellipse"), found(boxes=[[100, 50, 80, 20, math.pi / 6]], rotated=True))
    value = region["value"]
    assert value["rotation"] == pytest.approx(30)
    assert (value["radiusX"], value["radiusY"]) == pytest.approx((20, 10))
    (line,) = kind_of_region("ellipselabels").outlines(region, SIZE_WH)  # type: ignore[union-attr]
    furthest = max(line, key=lambda point: math.dist(point, (100, 50)) + point[0] / 1000)
    assert furthest == pytest.approx((100 + 40 * math.cos(math.pi / 6), 50 + 40 * math.sin(math.pi / 6)), abs=1)


def test_an_ellipse_that_label_studio_would_refuse_is_that_of_the_upright_hull() -> None:
    """Its larger radius would be 60 % of the width, and 120 % of the height."""
    (region,) = regions_of(config("Ellipse"), found(boxes=[[100, 50, 240, 20, 0.3]], rotated=True))
    assert region["value"]["rotation"] == 0
    (rectangle,) = regions_of(config("Rectangle"), found(boxes=[[100, 50, 240, 20, 0.3]], rotated=True))
    hull, value = rectangle["value"], region["value"]
    assert (value["radiusX"], value["radiusY"]) == pytest.approx((hull["width"] / 2, hull["height"] / 2), abs=1e-4)
    assert (value["x"], value["y"]) == pytest.approx((50, 50), abs=1e-4)


# What all have in common


@pytest.mark.parametrize("shape", SHAPES)
def test_labels_apart_are_two_regions_with_one_id(shape: str) -> None:
    detections = found(ring_and_dot(), boxes=[[60, 10, 140, 90]])
    place, labels = regions_of(config(shape, apart=True), detections)
    (at_once,) = regions_of(config(shape), detections)
    assert (place["from_name"], place["type"]) == ("place", shape.lower())
    assert (labels["from_name"], labels["type"]) == ("kind", "labels")
    assert place["id"] == labels["id"]
    assert place["score"] == labels["score"] == at_once["score"]
    value = {key: value for key, value in at_once["value"].items() if key != f"{shape.lower()}labels"}
    assert place["value"] == value
    assert labels["value"] == {**value, "labels": ["car"]}
    assert place.get("meta") == labels.get("meta") == at_once.get("meta")


@pytest.mark.parametrize(
    ("shape", "served"),
    [
        ("Rectangle", "detect segment pose obb"),
        ("Ellipse", "detect segment pose obb"),
        ("Polygon", "segment obb"),
        ("Brush", "segment"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_weights_that_cannot_serve_it_are_told(shape: str, served: str, apart: bool) -> None:
    control = control_of(config(shape, apart=apart))
    kind = kind_of(control)
    for weights_kind in ("detect", "segment", "pose", "obb", "classify"):
        weights = WeightsInfo("x.pt", weights_kind, {0: "car"}, "f", (640, 640))
        masks = weights_kind == "segment" and shape in {"Polygon", "Brush"}
        if weights_kind in served.split():
            kind.check_weights(control, weights, "x.pt")
            assert kind.wants_masks(control, weights) is masks
            continue
        with pytest.raises(LabelingConfigError, match=f'"kind".* x.pt are {weights_kind} weights: name others'):
            kind.check_weights(control, weights, "x.pt")


@pytest.mark.parametrize("shape", ["PolygonLabels", "BrushLabels", "Choices"])
def test_who_wants_weights_of_another_kind_is_told_of_model_name_which_can_be_trained(shape: str) -> None:
    inner = '<Choice value="car"/>' if shape == "Choices" else '<Label value="car"/>'
    control = control_of(
        f'<View><Image name="image" value="$image"/><{shape} name="kind" toName="image">{inner}</{shape}></View>'
    )
    weights = WeightsInfo("x.pt", "detect", {0: "car"}, "f", (640, 640))
    with pytest.raises(LabelingConfigError, match="name others in MODEL_NAME, or in model_path, or "):
        kind_of(control).check_weights(control, weights, "x.pt")


@pytest.mark.parametrize(
    ("shape", "learning"),
    [("Rectangle", {"detect", "obb"}), ("Ellipse", set()), ("Polygon", {"segment"}), ("Brush", {"segment"})],
)
@pytest.mark.parametrize("apart", [False, True])
def test_which_weights_learn_from_it(shape: str, learning: set[str], apart: bool) -> None:
    control = control_of(config(shape, apart=apart))
    assert kind_of(control).trained_with(control) == learning


def test_the_version_depends_on_what_changes_a_region_and_on_nothing_else() -> None:
    configs = [config(shape, apart=apart) for shape in SHAPES for apart in (False, True)]
    configs += [config("Polygon", attribute) for attribute in ('model_parts="all"', 'model_polygon_tolerance="2"')]
    configs += [config("Polygon", 'model_parts="all"', apart=True)]
    controls = [control_of(each) for each in configs]
    ingredients = [json.dumps(kind_of(control).ingredients(control), sort_keys=True) for control in controls]
    assert len(set(ingredients)) == len(ingredients)
    assert ingredients[:2] == ["{}", '{"rectangle": "place"}']
    by_default = control_of(config("Polygon", 'model_parts="largest"'))
    assert kind_of(by_default).ingredients(by_default) == kind_of(controls[2]).ingredients(controls[2])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("shrunk", [1, 2])
def test_it_is_drawn_along_its_edge(shape: str, apart: bool, shrunk: int) -> None:
    rows, columns = np.mgrid[:100, :200]
    mask = Mask.of_bitmap((rows - 50) ** 2 / 25**2 + (columns - 100) ** 2 / 50**2 <= 1)
    regions = regions_of(config(shape, apart=apart), found(mask, boxes=[[50, 25, 150, 75]]))
    grey = Image.new("RGB", SIZE_WH, (128, 128, 128))
    drawn = draw_regions(grey, regions, (200 // shrunk, 100 // shrunk))
    changed = (np.asarray(drawn) != 128).any(axis=2)
    for x, y in ((50, 50), (149, 50), (100, 74)):
        column, row = x // shrunk, y // shrunk
        assert changed[row - 2 : row + 3, column - 2 : column + 3].any()
    middle_x, middle_y = 100 // shrunk, 50 // shrunk
    assert not changed[middle_y - 3 : middle_y + 4, middle_x - 3 : middle_x + 4].any()
    # At a corner of the box there is a line of a rectangle only.
    corner = changed[70 // shrunk : 80 // shrunk, 142 // shrunk : 156 // shrunk]
    assert corner.any() == (shape == "Rectangle")


RECTANGLE = {"x": 10, "y": 20, "width": 30, "height": 40}
ELLIPSE = {"x": 10, "y": 20, "radiusX": 5, "radiusY": 6}
POINT = {"x": 10, "y": 20}


@pytest.mark.parametrize(
    "type_", ["rectanglelabels", "polygonlabels", "polygon", "brushlabels", "brush", "ellipselabels", "labels"]
)
@pytest.mark.parametrize(
    "value",
    [
        {},
        None,
        [1],
        "text",
        5,
        {"points": []},
        {"points": [[1, 2]]},
        {"points": [[1, 2], [3]]},
        {"points": [[1, 2], [3, None]]},
        {"points": [[1, 2], [3, math.inf]]},
        {"points": "1 2"},
        {"rle": []},
        {"rle": "abc"},
        {"rle": [1, 2, 3]},
        {"rle": [1000]},
        {"x": 1, "y": 1, "radiusX": None, "radiusY": 2},
        {"x": 1, "y": 1, "radiusX": 2},
    ],
)
def test_anybodys_regions_are_not_drawn_where_they_are_malformed(type_: str, value: Any) -> None:
    kind = kind_of_region(type_)
    assert kind is not None
    region = {"type": type_, "value": value, "original_width": 10, "original_height": 10}
    assert kind.outlines(region, SIZE_WH) == []
    for size in ("10", 0, -1, None, 10**9):
        rle = [0, 0, 1, 144, 57, 57]
        assert kind.outlines({**region, "value": {"rle": rle}, "original_width": size}, SIZE_WH) == []


@pytest.mark.parametrize("number", [None, "12", [], [1], {}, math.nan, math.inf, 10**400])
@pytest.mark.parametrize(
    ("type_", "value", "key"),
    [
        (type_, value, key)
        for types, value in (
            (("rectanglelabels", "labels"), {**RECTANGLE, "rotation": 5}),
            (("ellipselabels", "labels"), {**ELLIPSE, "rotation": 5}),
            (("keypointlabels",), POINT),
        )
        for type_ in types
        for key in value
    ],
)
def test_anybodys_places_are_not_drawn_where_they_are_no_numbers(
    type_: str, value: dict[str, Any], key: str, number: Any
) -> None:
    kind = kind_of_region(type_)
    assert kind is not None
    assert kind.outlines({"type": type_, "value": value}, SIZE_WH)
    is_turned_by_nothing = key == "rotation" and not number
    assert bool(kind.outlines({"type": type_, "value": {**value, key: number}}, SIZE_WH)) == is_turned_by_nothing


@pytest.mark.parametrize("type_", ["rectanglelabels", "keypointlabels", "choices", "taxonomy", "number", "labels"])
@pytest.mark.parametrize("value", [None, [1], "text", 5])
def test_anybodys_regions_without_a_value_are_not_drawn(type_: str, value: Any) -> None:
    picture = Image.new("RGB", SIZE_WH)

    drawn = draw_regions(picture, [{"type": type_, "value": value}])

    assert np.array_equal(np.asarray(drawn), np.asarray(picture))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_of_other_systems_become_its_regions(tmp_path: Path, shape: str, apart: bool) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(encode(Image.new("RGB", SIZE_WH)))
    box = {"label": "car", "x": 50, "y": 25, "width": 100, "height": 50}
    (tmp_path / "old.jsonl").write_text(json.dumps({"image": "a.png", "boxes": [{**box, "score": 0.9}, box]}))
    label_config = config(shape, apart=apart)

    (item,) = add_labels([photo], read_labels(tmp_path / "old.jsonl"), control_of(label_config), "old").items

    (prediction,) = item.predictions
    assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []
    regions = prediction["result"]
    assert [region.get("score") for region in regions] == [0.9] * (1 + apart) + [None] * (1 + apart)
    assert count_boxes(regions) == 2
    value = regions[0]["value"]
    inside = np.zeros(SIZE_WH[::-1], np.bool_)
    inside[25:75, 50:150] = True
    if shape in {"Polygon", "Brush"}:
        assert np.array_equal(pixels_of(regions[0]), inside)
    elif shape == "Ellipse":
        assert {key: value[key] for key in ("x", "y", "radiusX", "radiusY")} == {
            "x": 50, "y": 50, "radiusX": 25, "radiusY": 25
        }  # fmt: skip
