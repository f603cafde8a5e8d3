from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.registering.formats.files import only, read, write
from yolo_backend.labels.places import corners_of_box
from yolo_backend.registering.label_files import read_labels
from yolo_backend.registering.objects import BOX, POINTS, POLYGON, ROTATED, LabelFileError

CLASSES = {"classes.txt": "RBC\nWBC"}
TURNED = "0 0.5 0.2 0.7 0.6 0.5 1 0.3 0.6"  # (100, 20), (140, 60), (100, 100), (60, 60): a square on its corner


def test_a_polygon_is_one(tmp_path: Path) -> None:
    write(tmp_path, CLASSES | {"a.txt": "1 0.1 0.1 0.5 0.1 0.5 0.9 0.3 0.95 0.1 0.9\n"})

    thing = only(tmp_path)

    assert (thing.label, thing.shape, thing.score) == ("WBC", POLYGON, None)
    (outline,) = thing.outlines
    np.testing.assert_allclose(outline, [(20, 10), (100, 10), (100, 90), (60, 95), (20, 90)])
    assert thing.box_xyxy == pytest.approx((20, 10, 100, 95))


@pytest.mark.parametrize(
    ("line", "points", "score"), [("0.1 0.1 0.5 0.1 0.5 0.9", 3, None), ("0.1 0.1 0.5 0.1 0.5 0.9 0.7", 3, 0.7)]
)
def test_a_triangle_perhaps_with_a_score(tmp_path: Path, line: str, points: int, score: float | None) -> None:
    write(tmp_path, CLASSES | {"a.txt": f"0 {line}"})

    thing = only(tmp_path)

    assert (thing.shape, len(thing.outlines[0]), thing.score) == (POLYGON, points, score)


@pytest.mark.parametrize(("behind", "score"), [("", None), (" 0.25", 0.25)])
def test_four_corners_are_a_rotated_box(tmp_path: Path, behind: str, score: float | None) -> None:
    write(tmp_path, CLASSES | {"a.txt": TURNED + behind})

    thing = only(tmp_path)

    assert (thing.shape, thing.score) == (ROTATED, score)
    assert thing.box_xywhr is not None
    assert sorted(corners_of_box(thing.box_xywhr)) == [
        pytest.approx(corner, abs=1e-3) for corner in [(60, 60), (100, 20), (100, 100), (140, 60)]
    ]
    np.testing.assert_allclose(thing.outlines[0], [(100, 20), (140, 60), (100, 100), (60, 60)])


def test_boxes_polygons_and_rotated_boxes_stand_in_one_file(tmp_path: Path) -> None:
    """As Roboflow exports them; a box may also be a rotated one that isn't turned."""
    lines = [
        "1 0.40625 0.3687505000000001 0.767188 0.3687505000000001 0.767188 0.7833335 0.40625 0.7833335",
        "0 0.204687 0.803125 0.165625 0.206250",
        "0 0.1 0.1 0.5 0.1 0.5 0.9 0.3 0.95 0.1 0.9",
    ]
    write(tmp_path, CLASSES | {"a.txt": "\n".join(lines)})

    quad, box, polygon = read(tmp_path, size_wh=(640, 480)).found

    assert [thing.shape for thing in (quad, box, polygon)] == [ROTATED, BOX, POLYGON]
    assert quad.box_xyxy == pytest.approx((260, 177, 491, 376), abs=0.01)
    assert box.box_xyxy == pytest.approx((78, 336, 184, 435), abs=0.01)


def test_key_points_are_those_that_data_yaml_says(tmp_path: Path) -> None:
    data = {"data.yaml": "kpt_shape: [2, 3]\nnames: [person]\nkpt_names:\n  0: [nose, tail]\n"}
    write(tmp_path, data | {"labels/a.txt": "0 0.5 0.5 0.2 0.4 0.1 0.2 2 0 0 0\n"})

    thing = only(tmp_path / "labels")

    assert (thing.shape, thing.has_box, thing.point_names) == (POINTS, True, ("nose", "tail"))
    assert thing.box_xyxy == pytest.approx((80, 30, 120, 70))
    seen, missing = thing.points
    assert seen == pytest.approx((20, 20, 1))
    assert all(map(math.isnan, missing))


def test_key_points_of_two_numbers_each(tmp_path: Path) -> None:
    """What lies in the corner isn't there, as Ultralytics has it."""
    data = {"data.yaml": "kpt_shape: [4, 2]\nnames: [person]\n"}
    write(tmp_path, data | {"a.txt": "0 0.5 0.5 0.2 0.4 0.1 0.2 0 0 0 0.4 0.3 0 0.9\n"})

    thing = only(tmp_path)

    seen, missing, left, top = thing.points
    assert [seen, left, top] == [pytest.approx(point) for point in ((20, 20, 1), (0, 40, 1), (60, 0, 1))]
    assert all(map(math.isnan, missing))
    assert thing.score == 0.9


def test_key_points_that_were_predicted_have_their_scores(tmp_path: Path) -> None:
    """As `predict(save_txt=True, save_conf=True)` writes them."""
    write(
        tmp_path,
        {
            "data.yaml": "kpt_shape: [2, 3]\nnames: [person]\n",
            "a.txt": "0 0.5 0.5 0.2 0.4 0.1 0.2 0.75 0.3 0.3 0.5 0.9",
        },
    )

    thing = only(tmp_path)

    assert (thing.score, [point[2] for point in thing.points]) == (0.9, [0.75, 0.5])


def test_key_points_are_known_by_their_visibilities_where_nothing_says_their_number(tmp_path: Path) -> None:
    write(tmp_path, CLASSES | {"a.txt": "0 0.5 0.5 0.2 0.4 0.1 0.2 2 0.3 0.3 1 0 0 0\n"})

    thing = only(tmp_path)

    assert (thing.shape, len(thing.points)) == (POINTS, 3)


CORNER = "0 0.7 0.6 0.8 0.5 1 0.5 1 1 0.7 1"  # a thing that the image's corner cuts; its 4th x and 5th y are 1
FULL = "0 0.1 0.1 0.5 0.1 0.5 0.9 0.3 0.95 0.1 0.9"
POSE = "0 0.5 0.5 0.2 0.4 0.45 0.5 1 0.55 0.5 1"
HIDDEN = "0 0.5 0.5 0.2 0.4 0.45 0.5 1 0 0 0"
NO_POINT = "0 0.5 0.5 0.2 0.4 0 0 0 0 0 0"
BOX_ONLY = "0 0.5 0.5 0.2 0.4"


@pytest.mark.parametrize(
    ("lines", "others", "shapes"),
    [
        ([CORNER], [], [POLYGON]),
        ([CORNER, BOX_ONLY], [BOX_ONLY] * 3, [POLYGON, BOX]),
        ([CORNER, FULL], [], [POLYGON, POLYGON]),
        ([CORNER, CORNER], [FULL, FULL], [POLYGON, POLYGON]),
        ([CORNER], [FULL], [POLYGON]),
        ([POSE], [HIDDEN], [POINTS]),
        ([POSE, NO_POINT, HIDDEN], [], [POINTS] * 3),
        ([POSE, BOX_ONLY], [HIDDEN, BOX_ONLY, BOX_ONLY], [POINTS, BOX]),
        ([POSE, FULL], [HIDDEN, "0 what"], [POINTS, POLYGON]),
        ([POSE.replace(" 1 ", " 2 "), FULL, FULL], [FULL], [POINTS, POLYGON, POLYGON]),
    ],
)
def test_a_polygon_in_the_corner_is_no_key_points_where_other_lines_are_none(
    tmp_path: Path, lines: list[str], others: list[str], shapes: list[str]
) -> None:
    write(tmp_path, CLASSES | {"a.txt": "\n".join(lines), "b.txt": "\n".join(others)})

    assert [thing.shape for thing in read(tmp_path).found] == shapes


def test_a_file_that_is_no_text_does_not_hide_what_the_others_agree_in(tmp_path: Path) -> None:
    write(tmp_path, CLASSES | {"a.txt": POSE, "b.txt": HIDDEN})
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")

    assert only(tmp_path).shape == POINTS


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"obj.names": "RBC\nWBC"}, "obj.names"),
        ({"_darknet.labels": "RBC\nWBC"}, "_darknet.labels"),
        ({"cells.yaml": "names: [RBC, WBC]"}, "cells.yaml"),
        ({"my.names": "RBC\nWBC"}, "my.names"),
        ({"obj.data": "classes = 2\nnames = data/c.list", "c.list": "RBC\nWBC"}, "c.list"),
    ],
)
def test_where_the_names_of_classes_are(tmp_path: Path, files: dict[str, Any], names: str) -> None:
    write(tmp_path, files | {"labels/train/a.txt": "1 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1"})

    of_image = read(tmp_path / "labels" / "train")

    assert [thing.label for thing in of_image.found] == ["WBC"]
    assert of_image.odd == [f"{tmp_path}/labels/train/a.txt:2: class 7 isn't one of the 2 in {tmp_path}/{names}"]


def test_one_file_is_of_one_image(tmp_path: Path) -> None:
    write(tmp_path, CLASSES | {"a.txt": "0 0.5 0.5 0.1 0.1", "b.txt": "what is this"})

    assert only(tmp_path / "a.txt").label == "RBC"


def test_texts_about_the_data_are_no_labels(tmp_path: Path) -> None:
    about = {"README.roboflow.txt": "7 cells", "train.txt": "data/obj_train_data/a.jpg\n", "obj.names": "RBC"}
    write(tmp_path, about | {"a.txt": "0 0.5 0.5 0.1 0.1", "test.txt": "0 0.5 0.5 0.1 0.1"})

    assert len(read_labels(tmp_path)) == 2


def test_key_points_out_of_all_bounds_are_odd(tmp_path: Path) -> None:
    write(tmp_path, {"data.yaml": "kpt_shape: [1, 3]\nnames: [person]\n", "a.txt": "0 0.5 0.5 0.2 0.4 320 0.2 2"})

    assert "a.txt:1: 320 is no fraction of the image" in read(tmp_path).odd[0]


def test_classes_that_are_none_are_told(tmp_path: Path) -> None:
    write(tmp_path, {"obj.data": "classes = 2", "a.txt": ""})

    with pytest.raises(LabelFileError, match="give --classes"):
        read_labels(tmp_path)
