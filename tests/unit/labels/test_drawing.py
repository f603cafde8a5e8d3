"""Regions drawn on pictures: where they are, in which color, and what is left out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from yolo_backend.labels.controls import table
from yolo_backend.labels.drawing import LabelColors, draw_contact_sheet, draw_regions

GREY = 128


def picture(width: int = 200, height: int = 100, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (width, height), (GREY, GREY, GREY)).convert(mode)


def region(label: str = "car", score: float | None = None, **value: Any) -> dict[str, Any]:
    """A rectangle region in the lower right quarter, where its text is above it."""
    place = {"x": 50, "y": 50, "width": 40, "height": 40, "rotation": 0, **value}
    made: dict[str, Any] = {"type": "rectanglelabels", "value": {**place, "rectanglelabels": [label]}}
    return made if score is None else {**made, "score": score}


def drawn_at(image: Image.Image) -> NDArray[np.intp]:
    """The pixels (x, y) that aren't grey any more."""
    rows, columns = np.nonzero((np.asarray(image) != GREY).any(axis=2))
    return np.stack([columns, rows], axis=1)


def is_near_line(points: NDArray[Any], start: tuple[float, float], end: tuple[float, float]) -> bool:
    """Is there something drawn at each tenth of the line?"""
    for share in np.linspace(0, 1, 11):
        at = np.array(start) + share * (np.array(end) - np.array(start))
        if np.abs(points - at).max(axis=1).min() > 2:
            return False
    return True


def test_nothing_to_draw_leaves_the_picture_alone() -> None:
    given = picture()
    drawn = draw_regions(given, [])
    assert np.array_equal(np.asarray(drawn), np.asarray(given))
    assert drawn is not given


@pytest.mark.parametrize("size_wh", [None, (100, 100), (50, 200)])
def test_a_box_is_where_its_percentages_say(size_wh: tuple[int, int] | None) -> None:
    given = picture()
    drawn = draw_regions(given, [region()], size_wh)
    width, height = drawn.size
    points = drawn_at(drawn)
    left, top, right, bottom = 0.5 * width, 0.5 * height, 0.9 * width, 0.9 * height
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        assert is_near_line(points, start, end)
    assert not len(drawn_at(given))


@pytest.mark.parametrize(
    ("size_wh", "expected"), [((100, 100), (100, 50)), ((1000, 1000), (200, 100)), ((200, 10), (20, 10))]
)
def test_a_picture_is_shrunk_to_fit_and_never_enlarged(size_wh: tuple[int, int], expected: tuple[int, int]) -> None:
    assert draw_regions(picture(), [], size_wh).size == expected


def test_a_turned_rectangle_turns_clockwise_around_its_top_left_corner() -> None:
    """In pixels, not in percent: the picture is twice as wide as it is high."""
    points = drawn_at(draw_regions(picture(), [region(x=50, y=30, width=20, height=10, rotation=45)]))
    start, diagonal = (100.0, 30.0), math.sqrt(0.5)
    right = (start[0] + 40 * diagonal, start[1] + 40 * diagonal)
    below = (start[0] - 10 * diagonal, start[1] + 10 * diagonal)
    assert is_near_line(points, start, right)
    assert is_near_line(points, start, below)
    assert not is_near_line(points, start, (140, 30))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_any_picture_becomes_rgb(mode: str) -> None:
    assert draw_regions(picture(mode=mode), [region(score=0.5)]).mode == "RGB"


def test_a_score_is_told_where_there_is_one() -> None:
    without, with_score, label_only = (
        drawn_at(draw_regions(picture(), [one])) for one in (region(), region(score=0.87), region(label=""))
    )
    assert len(label_only) < len(without) < len(with_score)


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "choices", "value": {"choices": "yes"}},
        {"type": "number", "value": {"number": "yes"}},
        {"type": "keypointlabels", "value": {"x": 1, "y": "2", "keypointlabels": ["car"]}},
        {"type": "brushlabels", "value": {"brushlabels": ["car"], "rle": [1, 2]}},
        {"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": []}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
    ],
)
def test_what_is_no_rectangle_with_a_label_is_left_out(odd: dict[str, Any]) -> None:
    assert not len(drawn_at(draw_regions(picture(), [odd])))


def test_a_label_keeps_its_color_from_picture_to_picture() -> None:
    colors = LabelColors()
    both = draw_regions(picture(), [region("car"), region("bus", x=2, y=40, width=10)], colors=colors)
    alone = draw_regions(picture(), [region("bus")], colors=colors)
    assert colors["car"] != colors["bus"]
    assert set(map(tuple, np.asarray(alone).reshape(-1, 3).tolist())) <= set(
        map(tuple, np.asarray(both).reshape(-1, 3).tolist())
    )


def near(pixel: Any, level: int) -> bool:
    """Returns True if a pixel of a JPEG is the gray of this level: it is off by one or two then."""
    return all(abs(value - level) <= 2 for value in pixel)


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (4, 1), (5, 2)])
def test_a_contact_sheet_has_a_cell_for_each_picture(count: int, rows: int, tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.jpg"
    draw_contact_sheet(((f"picture {number}", picture(), [region()]) for number in range(count)), path)
    with Image.open(path) as sheet:
        assert sheet.size == (1600, rows * 322)
        has_picture = [
            near(sheet.getpixel((number % 4 * 400 + 110, number // 4 * 322 + 110)), GREY) for number in range(4 * rows)
        ]
    assert has_picture == [number < count for number in range(4 * rows)]


def test_a_sheet_of_many_photographs_can_be_sent(tmp_path: Path) -> None:
    """Noise is the worst that a JPEG can be made of: photographs take a fifth."""
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (300, 400, 3), np.uint8))
    path = tmp_path / "sheet.jpg"
    draw_contact_sheet(((f"picture {number}", noise, []) for number in range(60)), path)
    assert path.stat().st_size <= 2_000_000
    with Image.open(path) as sheet:
        assert sheet.width / sheet.height == pytest.approx(1600 / (15 * 322), rel=0.01)


@pytest.mark.long
def test_so_many_rows_as_no_jpeg_has(tmp_path: Path) -> None:
    path = tmp_path / "sheet.jpg"
    small = Image.new("RGB", (4, 3))
    draw_contact_sheet((("", small, []) for _ in range(1000)), path)
    with Image.open(path) as sheet:
        assert sheet.format == "JPEG"


def test_the_texts_of_boxes_that_overlap_do_not() -> None:
    """Each can be read: it stands on a plate of its label's color, and on no other's."""
    names = [f"label {number}" for number in range(5)]
    colors = LabelColors()
    regions = [region(name, x=10 + number, y=20 + number) for number, name in enumerate(names)]
    drawn = np.asarray(draw_regions(picture(), regions, colors=colors))
    for name in names:
        wanted = np.array([int(colors[name][start : start + 2], 16) for start in (1, 3, 5)])
        plate = (drawn == wanted).all(axis=2)
        rows = plate.sum(axis=1)
        assert (rows > 10).sum() >= 8  # a plate is as high as its text, and as wide


def test_what_has_no_shape_is_written_into_the_corner_line_by_line() -> None:
    yes: dict[str, Any] = {"type": "choices", "value": {"choices": ["yes"]}, "score": 0.5}
    path: dict[str, Any] = {"type": "taxonomy", "value": {"taxonomy": [["animal", "cat"], ["car"]]}}
    number: dict[str, Any] = {"type": "number", "from_name": "cars", "value": {"number": 0}}
    rows = [drawn_at(draw_regions(picture(), [yes, path, number][:count]))[:, 1] for count in (1, 2, 3)]
    assert [each.min() for each in rows] == [rows[0].min()] * 3
    assert rows[0].max() < rows[1].max() < rows[2].max() < 80
    kinds = [table.kind_of_region(one["type"]) for one in (yes, path, number)]
    texts = [kind.texts(one) for kind, one in zip(kinds, (yes, path, number), strict=True) if kind]
    assert texts == [["yes"], ["animal / cat", "car"], ["cars: 0"]]


def test_a_key_point_is_a_small_cross_and_only_the_first_of_a_thing_has_its_label() -> None:
    def point(id_: str, x: float) -> dict[str, Any]:
        return {"id": id_, "type": "keypointlabels", "value": {"x": x, "y": 50, "keypointlabels": ["nose"]}}

    first, second = point("0123456789", 25), point("0123456789-1", 75)
    alone = [len(drawn_at(draw_regions(picture(), [one]))) for one in (first, second)]
    assert 0 < alone[1] < alone[0]  # without a text
    cross = drawn_at(draw_regions(picture(), [second]))
    width, height = picture().size
    assert (abs(cross - [width * 0.75, height / 2]) <= 4).all()
