"""Polygons and masks as people draw them, and as the trainer reads them."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.labels.masks import Bitmap, bitmaps, blobs, in_image
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.outlines import filled
from yolo_backend.labels.rle import encode_rle
from yolo_backend.training.annotations import (
    NO_LABEL,
    NO_MASK,
    NO_PLACE,
    OUTSIDE,
    TOO_SMALL,
    TWICE,
    UNKNOWN_LABEL,
    Drawn,
    read_drawn,
    regions_by_image,
)
from yolo_backend.training.drawn_outlines import (
    BROKEN_RLE,
    NO_SIZE,
    TOO_LARGE,
    TOO_MANY_SPECKS,
    Line,
    one_line_through,
    outlines_of_region,
)
from yolo_backend.training.remarks import on_things
from yolo_backend.training.things import REGIONS

SIZE_WH = (200, 100)
LABELS = '<Label value="car"/><Label value="cat"/>'
BOTH = f"""<View><Image name="image" value="$image"/>
<PolygonLabels name="outline" toName="image">{LABELS}</PolygonLabels>
<BrushLabels name="mask" toName="image">{LABELS}</BrushLabels></View>"""
ALL_PARTS = BOTH.replace('<PolygonLabels name="outline"', '<PolygonLabels name="outline" model_parts="all"')
WITH_SHAPES = f"""<View><Image name="image" value="$image"/><Polygon name="outline" toName="image"/>
<Brush name="mask" toName="image"/><Labels name="label" toName="image">{LABELS}</Labels></View>"""
TRIANGLE = [[10, 10], [50, 10], [10, 50]]
IN_PIXELS = ((20, 10), (100, 10), (20, 50))


def polygon(points: Any = TRIANGLE, label: str | None = "car", **more: Any) -> dict[str, Any]:
    labels = {} if label is None else {"polygonlabels": [label]}
    return region("outline", "polygonlabels", {"points": points, "closed": True, **labels}, **more)


def brush(bitmap: Bitmap, label: str = "car", offset_xy: tuple[int, int] = (0, 0), **more: Any) -> dict[str, Any]:
    size_wh = more.get("original_width", SIZE_WH[0]), more.get("original_height", SIZE_WH[1])
    rle = encode_rle(Mask.of_bitmap(bitmap, offset_xy), size_wh)
    return region("mask", "brushlabels", {"format": "rle", "rle": rle, "brushlabels": [label]}, **more)


def region(from_name: str, type_: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "r", "from_name": from_name, "to_name": "image", "type": type_, "value": value, "origin": "manual",
        "original_width": SIZE_WH[0], "original_height": SIZE_WH[1], "image_rotation": 0, **more,
    }  # fmt: skip


def drawn(*regions: dict[str, Any], config: str = BOTH, size_wh: tuple[int, int] = SIZE_WH) -> Drawn:
    controls = parse_labeling_config(config).controls
    by_image = regions_by_image({"result": list(regions)}, controls, "segment")
    return read_drawn(by_image.get(("image", 0), []), {}, size_wh)


def pixels(outlines: tuple[Line, ...], size_wh: tuple[int, int] = SIZE_WH) -> Bitmap:
    return in_image(filled([np.array(line) for line in outlines], size_wh), size_wh)


def square(side: int) -> Bitmap:
    return np.ones((side, side), np.bool_)


def ring(side: int = 40, hole: int = 20) -> Bitmap:
    bitmap = square(side)
    edge = (side - hole) // 2
    bitmap[edge:-edge, edge:-edge] = False
    return bitmap


# Polygons


def test_a_polygon_is_in_pixels_of_the_image() -> None:
    (box,) = drawn(polygon()).boxes
    assert box.outlines == (IN_PIXELS,)
    assert box.box_xyxy == (20, 10, 100, 50)
    assert box.box_xywhr == (60, 30, 80, 40, 0)
    assert (box.label, box.origin) == ("car", "manual")


def test_what_is_beyond_the_edge_is_cut_off_also_of_one_with_bays() -> None:
    comb = [[90, 10], [120, 10], [120, 20], [95, 20], [95, 30], [120, 30], [120, 40], [90, 40]]
    (box,) = drawn(polygon(comb)).boxes
    assert box.box_xyxy == (180, 10, 200, 40)
    covered = pixels(box.outlines)
    assert covered[10:20, 180:].all()
    assert covered[20:30, 180:190].all()
    assert not covered[20:30, 190:].any()
    assert covered[30:40, 180:].all()
    assert covered.sum() == 200 + 100 + 200


def test_an_8_is_its_two_halves() -> None:
    (box,) = drawn(polygon([[10, 10], [50, 90], [10, 90], [50, 10]])).boxes
    covered = pixels(box.outlines)
    assert covered[15, 60]
    assert covered[85, 60]
    assert not covered[50, 25]


@pytest.mark.parametrize("origin", ["manual", "prediction", "prediction-changed"])
def test_how_it_came_about(origin: str) -> None:
    assert [box.origin for box in drawn(polygon(origin=origin)).boxes] == [origin]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (polygon([[110, 10], [150, 10], [110, 50]]), OUTSIDE),
        (polygon([[10, -10], [50, -10], [10, 0]]), OUTSIDE),  # it touches the edge
        (polygon([[10, 10], [20, 20]]), NO_PLACE),
        (polygon([[10, 10], [20, 20], [30, 30]]), NO_PLACE),
        (polygon([[10, 10], [20, 20], [30, math.nan]]), NO_PLACE),
        (polygon([[10, 10], [20, 20], [30]]), NO_PLACE),
        (polygon([[10, 10], [20, "a"], [30, 0]]), NO_PLACE),
        (polygon([10, 20, 30]), NO_PLACE),
        (polygon(None), NO_PLACE),
        (polygon([[10, 10], [10.2, 10], [10, 10.4]]), TOO_SMALL),
        (polygon([[10, 10], [90, 10.5], [90, 10.6]]), TOO_SMALL),
        (polygon(label="dog"), UNKNOWN_LABEL.format("dog")),
        (polygon(label=None, id="w"), NO_LABEL),
        (brush(np.zeros((5, 5), np.bool_)), NO_PLACE),
        (brush(square(9), original_width=100), None),
        (brush(square(9)) | {"original_width": 100}, NO_MASK.format(BROKEN_RLE)),
        (brush(square(9)) | {"original_width": None}, NO_MASK.format(NO_SIZE)),
        (brush(square(9)) | {"original_width": 10**6, "original_height": 10**6}, NO_MASK.format(TOO_LARGE)),
        (region("mask", "brushlabels", {"rle": "abc", "brushlabels": ["car"]}), NO_MASK.format(BROKEN_RLE)),
        (region("mask", "brushlabels", {"rle": [1, 2, 3], "brushlabels": ["car"]}), NO_MASK.format(BROKEN_RLE)),
        (region("mask", "brushlabels", {"rle": None, "brushlabels": ["car"]}), NO_MASK.format(BROKEN_RLE)),
    ],
)
def test_what_is_not_trained_on_is_named_and_costs_itself_only(wrong: dict[str, Any], fault: str | None) -> None:
    found = drawn(polygon([[1, 1], [9, 1], [9, 9]]), wrong)
    assert found.faults == ((fault,) if fault else ())
    assert len(found.boxes) == (1 if fault else 2)


def test_what_was_drawn_twice_counts_once_and_another_outline_in_the_same_hull_twice() -> None:
    other = [[10, 10], [50, 10], [50, 50]]
    found = drawn(polygon(), polygon(id="s"), polygon(other, id="t"), polygon(label="cat", id="u"))
    assert [(box.label, box.outlines[0][2]) for box in found.boxes] == [
        ("car", (20, 50)), ("car", (100, 50)), ("cat", (20, 50)),
    ]  # fmt: skip
    assert found.faults == (TWICE,)


def test_parts_that_were_predicted_as_polygons_of_one_thing_are_one_thing() -> None:
    far = [[70, 10], [90, 10], [70, 50]]
    parts = (polygon(id="a"), polygon(far, id="b", parentID="a"), polygon(far, "cat", id="c", parentID="a"))
    for order in (parts, parts[::-1]):
        cat, car = sorted(drawn(*order, config=ALL_PARTS).boxes, key=lambda box: len(box.outlines))
        assert (car.label, cat.label) == ("car", "cat")
        assert len(car.outlines) == 2
        assert car.box_xyxy == (20, 10, 180, 50)
        assert len(cat.outlines) == 1
    # A part of itself, and one whose first part is gone, are things by themselves.
    alone = (polygon(id="a", parentID="a"), polygon(far, id="b", parentID="gone"))
    assert [len(box.outlines) for box in drawn(*alone, config=ALL_PARTS).boxes] == [1, 1]
    # Otherwise a person put one region below another, which says nothing of what it is.
    assert [len(box.outlines) for box in drawn(*parts).boxes] == [1, 1, 1]


def test_polygons_without_an_id_are_things_by_themselves() -> None:
    """A script may store them so; no parent is theirs."""
    far = [[70, 10], [90, 10], [70, 50]]
    regions = [{key: said for key, said in polygon(points).items() if key != "id"} for points in (TRIANGLE, far)]
    for more in ({}, {"parentID": None}, {"parentID": ""}):
        assert [len(box.outlines) for box in drawn(*(each | more for each in regions), config=ALL_PARTS).boxes] == [
            1,
            1,
        ]


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (("prediction", "prediction"), "prediction"),
        (("prediction", "prediction-changed"), "prediction-changed"),
        (("prediction-changed", "prediction"), "prediction-changed"),
        (("prediction", "manual"), "prediction-changed"),
        (("manual", "prediction"), "prediction-changed"),
        (("manual", "manual"), "manual"),
    ],
)
def test_a_thing_was_kept_as_predicted_only_if_all_its_parts_were(origins: tuple[str, str], origin: str) -> None:
    far = [[70, 10], [90, 10], [70, 50]]
    first, other = polygon(id="a", origin=origins[0]), polygon(far, id="b", parentID="a", origin=origins[1])
    assert [box.origin for box in drawn(first, other, config=ALL_PARTS).boxes] == [origin]


def test_polygons_and_masks_of_labels_with_shapes_are_one_thing_each() -> None:
    place = polygon(label=None) | {"type": "polygon"}
    labelled = region("label", "labels", {"points": TRIANGLE, "labels": ["cat"]})
    painted = brush(square(9), id="p")
    of_mask = region("label", "labels", {**painted["value"], "labels": ["car"]}, id="p")
    rectangle = region("label", "labels", {"x": 1, "y": 1, "width": 9, "height": 9, "labels": ["car"]}, id="q")
    found = drawn(place, labelled, painted | {"type": "brush"}, of_mask, rectangle, config=WITH_SHAPES)
    assert [box.label for box in found.boxes] == ["cat", "car"]
    assert found.faults == ()
    assert drawn(place, config=WITH_SHAPES).faults == (NO_LABEL,)


@pytest.mark.parametrize(
    "other",
    [
        {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": ["good"]}},
        polygon() | {"from_name": "others"},
        region("outline", "rectanglelabels", {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["car"]}),
        {"from_name": "outline", "to_name": "image", "type": "polygonlabels"},
    ],
)
def test_what_is_of_other_controls_is_not_looked_at(other: dict[str, Any]) -> None:
    assert drawn(other) == Drawn(())


# Masks


def test_a_mask_keeps_its_holes_and_its_parts() -> None:
    bitmap = np.concatenate([ring(), np.zeros((40, 20), np.bool_), square(40)], axis=1)
    bitmap[18:22, 18:22] = True  # a part in the hole
    (box,) = drawn(brush(bitmap, offset_xy=(50, 30))).boxes
    assert box.box_xyxy == (50, 30, 150, 70)
    assert len(box.outlines) == 4
    covered = pixels(box.outlines)
    expected = np.zeros_like(covered)
    expected[30:70, 50:150] = bitmap
    assert (covered ^ expected).sum() <= 4 * len(box.outlines), "but for its corners"


def test_of_a_heap_of_equal_parts_the_most_are_kept() -> None:
    dots = np.zeros((100, 200), np.bool_)
    dots[::4, ::4] = dots[1::4, ::4] = True
    (box,) = drawn(brush(dots)).boxes
    assert len(box.outlines) == 500


@given(bitmaps(9), st.tuples(st.integers(0, 6), st.integers(0, 6)))
def test_where_it_is_in_the_image_changes_nothing(bitmap: Bitmap, offset_xy: tuple[int, int]) -> None:
    """Also where it ends in the last corner."""
    size_wh = (offset_xy[0] + bitmap.shape[1], offset_xy[1] + bitmap.shape[0])
    own_wh = (bitmap.shape[1], bitmap.shape[0])
    there, alone = (
        outlines_of_region(brush(bitmap, offset_xy=at, original_width=wh[0], original_height=wh[1]), wh)
        for at, wh in ((offset_xy, size_wh), ((0, 0), own_wh))
    )
    assert there
    assert alone
    moved = [np.array(line) - offset_xy for line in there]
    assert all(np.allclose(one, other) for one, other in zip(moved, map(np.array, alone), strict=True))


def test_noise_is_told_within_a_moment() -> None:
    noise = np.random.default_rng(0).random((1000, 1000)) < 0.5
    assert drawn(brush(noise, original_width=1000, original_height=1000)).faults == (NO_MASK.format(TOO_MANY_SPECKS),)


def test_why_a_mask_cannot_be_read_is_told() -> None:
    (remark,) = on_things(
        [(7, fault) for fault in drawn(brush(square(9)) | {"original_width": None}).faults],
        REGIONS.one,
        REGIONS.several,
    )
    assert remark == (
        "Not trained on: 1 region whose mask can't be read: it doesn't say of which size its image is (task 7)"
    )


def test_slips_of_the_brush_are_no_parts_and_no_holes() -> None:
    bitmap = square(60)
    bitmap[30, 30] = False
    bitmap = np.pad(bitmap, ((0, 0), (0, 20)))
    bitmap[5:7, 70:72] = True
    (box,) = drawn(brush(bitmap)).boxes
    assert len(box.outlines) == 1
    assert box.box_xyxy == (0, 0, 60, 60)


@given(blobs(), st.sampled_from([(0, 0), (37, 12)]))
@settings(deadline=None, max_examples=12)
def test_its_outline_is_that_of_its_pixels_to_half_a_pixel(bitmap: Bitmap, offset_xy: tuple[int, int]) -> None:
    """Half a pixel from the middles of the pixels' sides, between which the line may be that was painted."""
    size_wh = (440, 420)
    painted = brush(bitmap, offset_xy=offset_xy, original_width=size_wh[0], original_height=size_wh[1])
    outlines = outlines_of_region(painted, size_wh)
    assert outlines
    expected = np.zeros(size_wh[::-1], np.bool_)
    left, top = offset_xy
    expected[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = bitmap
    large = cv2.resize(expected.astype(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    edges = cv2.morphologyEx(np.pad(large, 4), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    to_edge = cv2.distanceTransform(1 - edges, cv2.DIST_L2, 5) / 4
    for line in outlines:
        for x, y in line:
            assert to_edge[round(4 * y) + 4 - 1, round(4 * x) + 4 - 1] <= 0.5


def test_a_mask_that_was_painted_on_a_smaller_copy_is_as_large_as_the_image() -> None:
    painted = brush(square(20), offset_xy=(10, 10), original_width=100, original_height=50)
    (box,) = drawn(painted, size_wh=(400, 200)).boxes
    assert box.box_xyxy == pytest.approx((40, 40, 120, 120), abs=2.1)


# One line


def test_one_line_through_all_of_them_holds_the_same_pixels() -> None:
    bitmap = np.concatenate([ring(), np.zeros((40, 20), np.bool_), ring(40, 10)], axis=1)
    (box,) = drawn(brush(bitmap)).boxes
    assert len(box.outlines) == 4
    line = one_line_through(box.outlines)
    assert len(line) == sum(map(len, box.outlines)) + 2 * 3
    np.testing.assert_array_equal(pixels((line,)), pixels(box.outlines))
    assert one_line_through(box.outlines[:1]) == box.outlines[0]


def test_very_long_lines_take_little_memory() -> None:
    turns = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    lines = tuple(tuple(map(tuple, (center + radius * circle).tolist())) for center, radius in ((100, 90), (100, 40)))
    line = one_line_through(lines)
    assert len(line) == 40_002
    np.testing.assert_array_equal(pixels((line,), (200, 200)), pixels(lines, (200, 200)))
