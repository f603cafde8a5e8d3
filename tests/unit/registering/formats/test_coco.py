from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.registering.formats.files import only, read, write
from yolo_backend.detection.masks import Mask
from yolo_backend.registering.formats.coco import decode_counts
from yolo_backend.registering.label_files import read_labels
from yolo_backend.registering.objects import BOX, MASK, POINTS, POLYGON, ROTATED, LabelFileError

BITMAP = np.zeros((100, 200), bool)
BITMAP[10:40, 20:60] = True
BITMAP[20:25, 30:35] = False  # a hole
BITMAP[70:99, 150:200] = True


def coco(*annotations: dict[str, Any], keypoints: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    """A COCO file of one image, a.jpg of 200x100, with these annotations."""
    return {
        "images": [{"id": 7, "file_name": "images/a.jpg", "width": 200, "height": 100}],
        "annotations": [
            {"id": number, "image_id": 7, "category_id": 3, **annotation}
            for number, annotation in enumerate(annotations, 1)
        ],
        "categories": [{"id": 3, "name": "car", **({"keypoints": keypoints} if keypoints else {})}],
        **changes,
    }


def counts_of(bitmap: NDArray[np.bool_]) -> list[int]:
    """The runs of an RLE as COCO has it: down the columns, the first one of pixels outside."""
    flat = bitmap.T.ravel()
    borders = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *([0] if flat[0] else []), *borders, flat.size]).tolist()  # type: ignore[no-any-return]


def packed(counts: list[int]) -> str:
    """Runs as a text, written from the description of COCO's format: differences, five bits a character."""
    text = ""
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            is_last = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if is_last else 32))
            if is_last:
                break
    return text


def pixels_of(mask: Mask | None, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    assert mask is not None
    bitmap = np.zeros(size_wh[::-1], bool)
    left, top, width, height = mask.window_xywh
    bitmap[top : top + height, left : left + width] = mask.bitmap()
    return bitmap


def test_polygons_are_read_with_all_their_parts(tmp_path: Path) -> None:
    parts = [[20, 10, 60, 10, 40, 30], [100, 50, 120, 50, 120, 90, 100, 95.5]]
    write(tmp_path, {"a.json": coco({"segmentation": parts, "bbox": [20, 10, 100, 85.5]})})

    thing = only(tmp_path / "a.json")

    assert (thing.label, thing.shape, thing.box_xyxy) == ("car", POLYGON, (20, 10, 120, 95.5))
    assert thing.outlines == (((20, 10), (60, 10), (40, 30)), ((100, 50), (120, 50), (120, 90), (100, 95.5)))


def test_a_polygon_that_only_repeats_the_box_is_a_box(tmp_path: Path) -> None:
    corners = [20, 10, 120, 10, 120, 60, 20, 60, 20, 10]
    write(tmp_path, {"a.json": coco({"segmentation": [corners], "bbox": [20, 10, 100, 50]})})

    assert (only(tmp_path / "a.json").shape, only(tmp_path / "a.json").box_xyxy) == (BOX, (20, 10, 120, 60))


@pytest.mark.parametrize("is_packed", [False, True])
def test_masks_are_read_pixel_by_pixel(tmp_path: Path, is_packed: bool) -> None:
    counts = counts_of(BITMAP)
    rle = {"size": [100, 200], "counts": packed(counts) if is_packed else counts}
    write(tmp_path, {"a.json": coco({"segmentation": rle, "bbox": [0, 0, 0, 0], "iscrowd": 1})})

    thing = only(tmp_path / "a.json")

    assert (thing.shape, thing.box_xyxy) == (MASK, (20, 10, 200, 99))
    assert (pixels_of(thing.mask, (200, 100)) == BITMAP).all()


@pytest.mark.parametrize("seed", range(20))
def test_any_mask_is_read_pixel_by_pixel(tmp_path: Path, seed: int) -> None:
    bitmap = np.random.default_rng(seed).random((13, 29)) < (0.02 + seed / 22)
    bitmap[0, 0] = seed % 2 == 0
    counts = counts_of(bitmap)
    image = {"id": 7, "file_name": "a.jpg", "width": 29, "height": 13}
    rle = {"size": [13, 29], "counts": packed(counts)}
    write(tmp_path, {"a.json": coco({"segmentation": rle}, images=[image])})

    assert decode_counts(packed(counts)).tolist() == counts
    assert (pixels_of(only(tmp_path / "a.json", size_wh=(29, 13)).mask, (29, 13)) == bitmap).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": [100, 200], "counts": [10, 20]}, "segmentation: its runs aren't those of 200x100 pixels"),
        ({"size": [100, 200], "counts": [10, -20, 20_010]}, "segmentation: its runs aren't those of 200x100 pixels"),
        ({"size": [100, 200], "counts": "a b"}, "segmentation: ' ' is no part of a COCO RLE"),
        ({"size": [100, 200], "counts": [20_000]}, "the mask has no pixel"),
        ({"size": [100_000, 100_000], "counts": [10**10]}, "segmentation: its size isn't that of the image"),
        ([[1, 2, 3, 4]], "a polygon has three points at least"),
        ([[1, 2, 3, 4, 5]], "segmentation: 5 numbers are no points of x and y"),
    ],
)
def test_an_odd_segmentation_is_told_and_costs_no_other(tmp_path: Path, changed: Any, message: str) -> None:
    write(tmp_path, {"a.json": coco({"segmentation": changed}, {"bbox": [1, 2, 3, 4]})})

    of_image = read(tmp_path / "a.json")

    assert len(of_image.found) == 1
    (told,) = of_image.odd
    assert told.startswith(f"{tmp_path}/a.json: annotation 1: ")
    assert message in told


def huge(side: int) -> dict[str, Any]:
    return {"size": [side, side], "counts": [1, side * side - 2, 1]}


def test_a_mask_of_another_size_than_the_image_is_odd_also_where_the_file_gives_none(tmp_path: Path) -> None:
    image = {"id": 7, "file_name": "a.jpg"}
    write(tmp_path, {"a.json": coco({"segmentation": huge(1_000_000)}, {"bbox": [1, 2, 3, 4]}, images=[image])})
    write(tmp_path, CLASSES | {"predictions.json": [RESULT | {"segmentation": huge(1_000_000)}, RESULT]})

    of_image, results = read(tmp_path / "a.json"), read(tmp_path / "predictions.json")

    assert of_image.odd == [f"{tmp_path}/a.json: annotation 1: segmentation: its size isn't that of the image"]
    assert results.odd == [f"{tmp_path}/predictions.json: entry 0: segmentation: its size isn't that of the image"]
    assert (len(of_image.found), len(results.found)) == (1, 1)


def test_a_mask_has_an_end(tmp_path: Path) -> None:
    """An image that is an address has the size that its labels give, whatever that is."""
    image = {"id": 7, "file_name": "a.jpg", "width": 1_000_000, "height": 1_000_000}
    write(tmp_path, {"a.json": coco({"segmentation": huge(1_000_000)}, images=[image])})

    (told,) = read(tmp_path / "a.json", size_wh=(1_000_000, 1_000_000)).odd
    assert told.endswith("annotation 1: segmentation: 1000000x1000000 are more than 300,000,000 pixels")


def test_key_points_have_their_names(tmp_path: Path) -> None:
    points = {"keypoints": [20, 10, 2, 0, 0, 0, 40, 20, 1], "num_keypoints": 2, "bbox": [10, 5, 50, 30]}
    write(tmp_path, {"a.json": coco(points, {**points, "bbox": [0, 0, 0, 0]}, keypoints=["nose", "tail", "ear"])})

    boxed, bare = read(tmp_path / "a.json").found

    assert (boxed.shape, boxed.has_box, boxed.box_xyxy) == (POINTS, True, (10, 5, 60, 35))
    assert boxed.point_names == ("nose", "tail", "ear")
    assert (boxed.points[0], boxed.points[2], math.isnan(boxed.points[1][2])) == ((20, 10, 1), (40, 20, 1), True)
    assert (bare.has_box, bare.box_xyxy) == (False, (20, 10, 40, 20))


def test_an_annotation_without_any_key_point_that_is_there_is_its_box(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": coco({"keypoints": [0] * 9, "bbox": [10, 5, 50, 30]})})

    assert only(tmp_path / "a.json").shape == BOX


@pytest.mark.parametrize(
    ("annotation", "box_xywhr"),
    [
        ({"bbox": [80, 40, 40, 20], "attributes": {"rotation": 30.0}}, (100, 50, 40, 20, math.radians(30))),
        ({"bbox": [100, 50, 40, 20, -30.0]}, (100, 50, 40, 20, math.radians(30))),
    ],
    ids=["as CVAT writes it", "as Detectron2 has it"],
)
def test_rotated_boxes_are_read(tmp_path: Path, annotation: dict[str, Any], box_xywhr: Any) -> None:
    write(tmp_path, {"a.json": coco(annotation)})

    thing = only(tmp_path / "a.json")

    assert thing.shape == ROTATED
    assert thing.box_xywhr == pytest.approx(box_xywhr)


def test_polygons_that_label_studio_scaled_by_the_turned_size_are_put_right(tmp_path: Path) -> None:
    """It takes x and y in percent of the upright image, and multiplies them by the size of the file as it lies."""
    percent = [(10, 20), (50, 20), (50, 90)]
    segmentation = [[value for x, y in percent for value in (x * 2, y * 1)]]
    annotation = {"segmentation": segmentation, "bbox": [20, 20, 80, 70]}
    content = coco(annotation, {"bbox": [10, 40, 30, 60]}, info={"contributor": "Label Studio"})
    write(tmp_path, {"a.json": content})

    polygon, box = read(tmp_path / "a.json", size_wh=(100, 200)).found

    np.testing.assert_allclose(polygon.outlines[0], [(10, 40), (50, 40), (50, 180)])
    assert box.box_xyxy == (10, 40, 40, 100)


CLASSES = {"classes.txt": "RBC\nWBC\nPlatelets"}
RESULT = {"image_id": "a", "file_name": "a.jpg", "category_id": 2, "bbox": [20, 10, 100, 50], "score": 0.5}


def test_results_of_ultralytics_are_read(tmp_path: Path) -> None:
    """Their classes are numbers, from 1."""
    rle = {"size": [100, 200], "counts": packed(counts_of(BITMAP))}
    masked = RESULT | {"category_id": 3, "segmentation": rle}
    posed = RESULT | {"category_id": 1, "keypoints": [20, 10, 0.75, 40, 20, 0.5]}
    turned = {key: value for key, value in RESULT.items() if key != "bbox"} | {
        "rbox": [100, 50, 40, 20, 0.5],
        "poly": [],
    }
    write(tmp_path, CLASSES | {"predictions.json": [RESULT, masked, posed, turned]})

    box, mask, points, rotated = read(tmp_path / "predictions.json").found

    assert [thing.label for thing in (box, mask, points, rotated)] == ["WBC", "Platelets", "RBC", "WBC"]
    assert [thing.shape for thing in (box, mask, points, rotated)] == [BOX, MASK, POINTS, ROTATED]
    assert (box.box_xyxy, box.score) == ((20, 10, 120, 60), 0.5)
    assert (pixels_of(mask.mask, (200, 100)) == BITMAP).all()
    assert points.points == ((20, 10, 0.75), (40, 20, 0.5))
    assert rotated.box_xywhr == (100, 50, 40, 20, 0.5)


@pytest.mark.parametrize(
    ("classes", "ids", "labels"),
    [
        (["a", "b"], [0, 1], ["a", "b"]),
        (["a", "b"], [1, 2], ["a", "b"]),
        ([f"class {number}" for number in range(80)], [1, 13, 90], ["class 0", "class 11", "class 79"]),
        ([f"class {number}" for number in range(80)], [0, 12, 79], ["class 0", "class 12", "class 79"]),
        ([f"class {number}" for number in range(80)], [1, 12, 80], ["class 0", "class 11", "class 79"]),
    ],
    ids=["as Ultralytics once counted", "as it counts", "as COCO counts", "COCO's from 0", "as many as COCO has"],
)
def test_how_results_number_classes(tmp_path: Path, classes: list[str], ids: list[int], labels: list[str]) -> None:
    results = [RESULT | {"category_id": number} for number in ids]
    write(tmp_path, {"classes.txt": "\n".join(classes), "predictions.json": results})

    assert [thing.label for thing in read(tmp_path / "predictions.json").found] == labels


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (RESULT | {"category_id": 9}, "entry 0: category_id 9 isn't one of the 3 in"),
        ({"image_id": "a", "category_id": 1}, "entry 0: bbox: Field required"),
        ({"image_id": "a", "file_name": "a.jpg"}, "entry 0: category_id: Field required"),
        (RESULT | {"score": 7}, "entry 0: score: Input should be less than or equal to 1"),
    ],
)
def test_an_odd_result_is_told_and_costs_no_other(tmp_path: Path, odd: dict[str, Any], message: str) -> None:
    write(tmp_path, CLASSES | {"predictions.json": [odd, RESULT]})

    of_image = read(tmp_path / "predictions.json")

    assert len(of_image.found) == 1
    (told,) = of_image.odd
    assert message in told


def test_results_that_know_their_images_by_numbers_only_are_told(tmp_path: Path) -> None:
    write(tmp_path, CLASSES | {"a.json": json.dumps([{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}])})

    with pytest.raises(LabelFileError, match="is a list of COCO results: it needs images and categories, too"):
        read_labels(tmp_path / "a.json")
