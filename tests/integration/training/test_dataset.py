"""The dataset as Ultralytics reads it: every box where it was drawn, and nothing dropped."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.outlines import filled
from yolo_backend.labels.places import corners_of_box
from yolo_backend.training.annotations import read_drawn
from yolo_backend.training.dataset import DatasetError, write_dataset
from yolo_backend.training.kinds import Kind
from yolo_backend.training.labelled import LabelledBox, LabelledImage

SIZE_WH = (320, 200)
CLASSES = ("car", "traffic light", "車")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "0123.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 320, 3), np.uint8)).save(path)
    return path


def box(label: str, xyxy: tuple[float, float, float, float], radians: float = 0.0) -> LabelledBox:
    left, top, right, bottom = xyxy
    return LabelledBox(
        label, xyxy, ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, radians), "manual"
    )


def image(file: Path, *boxes: LabelledBox, task_id: int = 1) -> LabelledImage:
    return LabelledImage(task_id, 1, "a.jpg", file.stem, 0, file, SIZE_WH, boxes)


def read(data_yaml: Path, side: str = "train", *, kind: Kind = "detect") -> Any:
    """What Ultralytics trains on."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(data_yaml, autodownload=False)
    return build_yolo_dataset(get_cfg(overrides={"task": kind, "imgsz": 320}), data[side], 4, data, mode="val")


def boxes_in_pixels(found: Any, index: int = 0) -> NDArray[np.float64]:
    """Left, top, right and bottom."""
    label = found.labels[index]
    center, size = label["bboxes"][:, :2], label["bboxes"][:, 2:]
    width, height = label["shape"][::-1]
    return np.asarray(np.hstack([center - size / 2, center + size / 2]) * np.array([width, height] * 2), np.float64)


def corners_in_pixels(found: Any, index: int = 0) -> list[NDArray[np.float64]]:
    width, height = found.labels[index]["shape"][::-1]
    return [np.asarray(segment, float) * [width, height] for segment in found.labels[index]["segments"]]


def test_which_classes_can_be_drawn_on_an_image_is_said_where_it_is_not_all(tmp_path: Path, photograph: Path) -> None:
    some = replace(image(photograph, task_id=2), labels=frozenset({"車", "car", "dog"}))
    data_yaml = write_dataset(tmp_path / "one", [image(photograph), some], [some], CLASSES, kind="detect")
    assert yaml.safe_load(data_yaml.read_text(encoding="utf-8"))["drawable"] == {"000001-2": [0, 2]}
    assert len(read(data_yaml).labels) == 2
    data_yaml = write_dataset(tmp_path / "other", [image(photograph)], [some], CLASSES, kind="detect")
    assert "drawable" not in yaml.safe_load(data_yaml.read_text(encoding="utf-8"))


def test_each_box_is_where_it_was_drawn(tmp_path: Path, photograph: Path) -> None:
    drawn = [box("car", (0, 0, 320, 200)), box("車", (10.25, 20.5, 30.75, 199.9)), box("dog", (1, 1, 9, 9))]
    data_yaml = write_dataset(
        tmp_path / "dataset",
        [image(photograph, *drawn), image(photograph, task_id=2)],
        [image(photograph, box("traffic light", (300.5, 150, 301.5, 151)))],
        CLASSES,
        kind="detect",
    )
    assert yaml.safe_load(data_yaml.read_text(encoding="utf-8"))["names"] == dict(enumerate(CLASSES))
    train, val = read(data_yaml), read(data_yaml, "val")
    assert [label["cls"].ravel().tolist() for label in train.labels] == [[0, 2], []]
    np.testing.assert_allclose(boxes_in_pixels(train), [drawn[0].box_xyxy, drawn[1].box_xyxy], atol=0.001)
    assert val.labels[0]["cls"].tolist() == [[1]]
    np.testing.assert_allclose(boxes_in_pixels(val), [(300.5, 150, 301.5, 151)], atol=0.001)
    assert [Path(file).name for file in train.im_files] == ["000000-1.jpg", "000001-2.jpg"]
    np.testing.assert_array_equal(train.load_image(0)[0][..., ::-1], np.asarray(Image.open(photograph)))


def region(place: dict[str, float]) -> dict[str, Any]:
    return {
        "type": "rectanglelabels",
        "value": {**place, "rectanglelabels": ["car"]},
        "original_width": SIZE_WH[0],
        "original_height": SIZE_WH[1],
    }


@pytest.fixture(scope="module")
def control() -> Any:
    from yolo_backend.labels.labeling_config import parse_labeling_config

    (control,) = parse_labeling_config(
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="car"/>'
        "</RectangleLabels></View>"
    ).controls
    return control


PLACES = st.fixed_dictionaries(
    {
        "x": st.floats(-20, 120),
        "y": st.floats(-20, 120),
        "width": st.floats(0, 130),
        "height": st.floats(0, 130),
        "rotation": st.floats(-360, 360),
    }
)


def test_pose_weights_are_given_each_box_with_its_points(tmp_path: Path, photograph: Path) -> None:
    """Those that nobody drew, and those that only the weights have, are there as not seen."""
    width, height = SIZE_WH
    posed = [
        replace(box("car", (10, 20, 110, 80)), points=((12.5, 25.0), None, (100.0, 70.0))),
        replace(box("車", (0, 0, width, height)), points=((0.0, 0.0), (width, height))),
    ]
    data_yaml = write_dataset(tmp_path / "d", [image(photograph, *posed)], [], CLASSES, kind="pose", points=4)
    data = yaml.safe_load(data_yaml.read_text())
    assert data["kpt_shape"] == [4, 3]
    (labels,) = read(data_yaml, kind="pose").labels
    assert labels["cls"][:, 0].tolist() == [CLASSES.index("car"), CLASSES.index("車")]
    np.testing.assert_allclose(labels["bboxes"][0] * np.array([width, height] * 2), [60, 50, 100, 60], atol=0.01)
    x, y, seen = np.moveaxis(labels["keypoints"] * (width, height, 1), -1, 0)
    np.testing.assert_allclose(x, np.array([(12.5, 0, 100, 0), (0, width, 0, 0)]), atol=0.01)
    np.testing.assert_allclose(y, [[25, 0, 70, 0], [0, height, 0, 0]], atol=0.01)
    assert seen.tolist() == [[2, 0, 2, 0], [2, 2, 0, 0]]


@given(places=st.lists(PLACES, min_size=1, max_size=8))
@pytest.mark.parametrize("kind", ["detect", "obb"])
def test_nothing_of_what_people_may_draw_is_dropped(
    places: list[dict[str, float]],
    kind: Kind,
    photograph: Path,
    control: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A box beyond the edge makes Ultralytics leave out its whole image, and one of two equal ones goes."""
    found = read_drawn([(region(place), control) for place in places], {}, SIZE_WH)
    assert len(found.boxes) + len(found.faults) == len(places)
    folder = tmp_path_factory.mktemp("drawn") / "dataset"
    whole = image(photograph, box("car", (1, 1, 100, 100)))
    read_back = read(write_dataset(folder, [image(photograph, *found.boxes), whole], [], CLASSES, kind=kind), kind=kind)
    assert [Path(file).name for file in read_back.im_files] == ["000000-1.jpg", "000001-1.jpg"]
    rows = (folder / "labels" / "train" / "000000-1.txt").read_text().splitlines()
    assert len(read_back.labels[0]["bboxes"]) == len(rows) <= len(found.boxes)
    if kind == "obb":
        for segment in corners_in_pixels(read_back):
            assert len(segment) >= 3


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 137, 270, 359])
def test_a_rotated_box_comes_to_obb_weights_with_its_angle(tmp_path: Path, photograph: Path, degrees: float) -> None:
    box_xywhr = (150.0, 100.0, 120.0, 40.0, math.radians(degrees))
    drawn = replace(box("car", (80, 40, 220, 160)), box_xywhr=box_xywhr)
    found = read(write_dataset(tmp_path / "d", [image(photograph, drawn)], [], CLASSES, kind="obb"), kind="obb")
    (segment,) = corners_in_pixels(found)
    np.testing.assert_allclose(segment, corners_of_box(box_xywhr), atol=0.001)
    # And what the network is to find, in the form and range of Ultralytics' own.
    x, y, width, height, radians = found[0]["bboxes"].numpy()[0].tolist()
    assert (x * 320, y * 320) == pytest.approx((150, 160), abs=0.5)  # letterboxed to a square
    assert (width * 320, height * 320) == pytest.approx((120, 40), abs=0.5)
    turned = (radians - math.radians(degrees)) % math.pi
    assert min(turned, math.pi - turned) < 0.02


def test_images_are_links_and_where_there_are_none_copies(
    tmp_path: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(name: str) -> Path:
        write_dataset(tmp_path / name, [image(photograph)], [], CLASSES, kind="detect")
        return tmp_path / name / "images" / "train" / "000000-1.jpg"

    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    assert write("hard").samefile(photograph)
    assert not write("hard2").is_symlink()
    monkeypatch.setattr(os, "link", refuse)
    assert write("soft").is_symlink()
    monkeypatch.setattr(os, "symlink", refuse)
    copy = write("copy")
    assert not copy.samefile(photograph)
    assert copy.read_bytes() == photograph.read_bytes()


def test_a_folder_that_takes_no_files_is_told_in_a_sentence(tmp_path: Path, photograph: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"can't be put into .*file.* make room there"):
        write_dataset(tmp_path / "file", [image(photograph)], [], CLASSES, kind="detect")


def test_the_names_of_files_keep_their_order_beyond_thousands(tmp_path: Path, photograph: Path) -> None:
    images: Sequence[LabelledImage] = [image(photograph, task_id=number) for number in (99, 7, 100_000)]
    write_dataset(tmp_path / "d", images, [], CLASSES, kind="detect")
    names = sorted(path.name for path in (tmp_path / "d" / "images" / "train").iterdir())
    assert names == ["000000-99.jpg", "000001-7.jpg", "000002-100000.jpg"]


# Outlines, for segmentation weights

RING = (
    tuple((160 + 80 * math.cos(turn), 100 + 60 * math.sin(turn)) for turn in np.linspace(0, 6.2, 50).tolist()),
    tuple((150 + 30 * math.cos(turn), 95 + 20 * math.sin(turn)) for turn in np.linspace(0, 6.2, 30).tolist()),
)
PARTS = (((20.0, 20.0), (60.0, 20.0), (20.0, 90.0)), ((250.0, 30.0), (300.0, 30.0), (300.0, 120.0), (250.0, 120.0)))


def outlined(label: str, *lines: tuple[tuple[float, float], ...]) -> LabelledBox:
    xs, ys = zip(*(point for line in lines for point in line), strict=True)
    return replace(box(label, (min(xs), min(ys), max(xs), max(ys))), outlines=lines)


def masks_trained_on(data_yaml: Path, image_size: int) -> NDArray[np.uint8]:
    """The masks of the only image as the loss has them, (things, height, width), each in the pixels of the image."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(data_yaml, autodownload=False)
    options = get_cfg(overrides={"task": "segment", "imgsz": image_size, "mask_ratio": 1, "overlap_mask": False})
    item = build_yolo_dataset(options, data["train"], 1, data, mode="val", rect=True)[0]
    masks = item["masks"].numpy()
    assert tuple(item["ori_shape"]) == SIZE_WH[::-1]
    pad = [(have - want) // 2 for have, want in zip(masks.shape[1:], SIZE_WH[::-1], strict=True)]
    return np.asarray(masks[:, pad[0] : pad[0] + SIZE_WH[1], pad[1] : pad[1] + SIZE_WH[0]], np.uint8)


@pytest.mark.parametrize("lines", [PARTS[:1], RING[:1], RING, PARTS, (*RING, *PARTS)])
def test_what_was_drawn_is_the_mask_that_is_trained_on(
    lines: tuple[tuple[tuple[float, float], ...], ...], tmp_path: Path, photograph: Path
) -> None:
    """Also of several parts, and with holes. Ultralytics paints a line's own pixels, too, up to one beside it."""
    thing = outlined("car", *lines)
    data_yaml = write_dataset(tmp_path / "d", [image(photograph, thing)], [], CLASSES, kind="segment")
    (mask,) = masks_trained_on(data_yaml, 320)
    drawn = filled([np.array(line) for line in lines], SIZE_WH)
    expected = np.zeros(SIZE_WH[::-1], np.uint8)
    left, top, width, height = drawn.window_xywh
    expected[top : top + height, left : left + width] = drawn.bitmap()
    around = np.ones((3, 3), np.uint8)
    most, least = cv2.dilate(expected, around), cv2.erode(expected, around)
    assert not (least & ~mask).any(), "something of it is missing"
    beyond = (mask & ~most).sum()
    ways = len(lines) - 1  # from one line to the next, a pixel wide
    assert beyond <= 250 * ways + 3  # and the tips of acute angles
    np.testing.assert_allclose(boxes_in_pixels(read(data_yaml, kind="segment")), [thing.box_xyxy], atol=0.01)


POLYGONS = st.lists(st.tuples(st.floats(-20, 120), st.floats(-20, 120)), min_size=3, max_size=12)


@given(drawn=st.lists(POLYGONS, min_size=1, max_size=6))
@settings(max_examples=25)
def test_no_polygon_that_people_may_draw_is_dropped(
    drawn: list[list[tuple[float, float]]], photograph: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    controls = parse_labeling_config(
        '<View><Image name="image" value="$image"/><PolygonLabels name="label" toName="image"><Label value="car"/>'
        "</PolygonLabels></View>"
    ).controls
    regions = [
        {"type": "polygonlabels", "value": {"points": [list(point) for point in points], "polygonlabels": ["car"]}}
        for points in drawn
    ]
    found = read_drawn([(each, controls[0]) for each in regions], {}, SIZE_WH)
    assert len(found.boxes) + len(found.faults) == len(drawn)
    folder = tmp_path_factory.mktemp("polygons") / "dataset"
    images = [image(photograph, *found.boxes), image(photograph, outlined("car", PARTS[0]))]
    read_back = read(write_dataset(folder, images, [], CLASSES, kind="segment"), kind="segment")
    assert [Path(file).name for file in read_back.im_files] == ["000000-1.jpg", "000001-1.jpg"]
    rows = (folder / "labels" / "train" / "000000-1.txt").read_text().splitlines()
    assert len(read_back.labels[0]["segments"]) == len(rows) == len(found.boxes)
    np.testing.assert_allclose(
        boxes_in_pixels(read_back).reshape(-1, 4),
        np.reshape([each.box_xyxy for each in found.boxes], (-1, 4)),
        atol=0.01,
    )


def test_two_outlines_in_one_hull_are_two(tmp_path: Path, photograph: Path) -> None:
    ones = outlined("car", ((10, 10), (90, 10), (10, 90))), outlined("car", ((90, 90), (90, 10), (10, 90)))
    data_yaml = write_dataset(tmp_path / "d", [image(photograph, *ones, ones[0])], [], CLASSES, kind="segment")
    assert len(read(data_yaml, kind="segment").labels[0]["segments"]) == 2
