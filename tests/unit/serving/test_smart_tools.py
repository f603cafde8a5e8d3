"""Smart tools: which box a drawn rectangle brings, and that none comes twice."""

from __future__ import annotations

import copy
import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from yolo_backend.serving.smart_tools import Click, LabelledBox, SmartTools, meant_boxes

CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image" smart="true">
<Label value="RBC"/><Label value="WBC"/><Label value="Platelets"/></RectangleLabels></View>"""
SIZE = (640, 480)
DRAWN: dict[str, Any] = {
    "id": "a1",
    "from_name": "label",
    "to_name": "image",
    "type": "rectanglelabels",
    "original_width": 640,
    "original_height": 480,
    "image_rotation": 0,
    "value": {"x": 20, "y": 20, "width": 15, "height": 25, "rotation": 0, "rectanglelabels": ["WBC"]},
}
VALUE = DRAWN["value"]
_ids = itertools.count()


def region(x: float, y: float, width: float, height: float, label: str = "WBC", **more: Any) -> dict[str, Any]:
    """A region as the model's are, with an id of its own and a score of 0.5."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": more.pop("rotation", 0)}
    made = {**DRAWN, "id": f"box{next(_ids)}", "value": {**value, "rectanglelabels": [label]}, "score": 0.5}
    return made | more


def drawn(x: float, y: float, width: float, height: float, label: str = "WBC", **more: Any) -> dict[str, Any]:
    made = region(x, y, width, height, label, id=f"drawn{next(_ids)}", **more)
    made.pop("score")
    return made


def as_label_studio_sends(*regions: Any, drafts: Any = (), annotations: Any = (), predictions: Any = ()) -> Any:
    """A task whose one draft, annotation, prediction hold these regions."""
    parts = {"drafts": drafts, "annotations": annotations, "predictions": predictions}
    return {"id": 84, "data": {"image": "x"}} | {
        name: [{"id": number, "result": list(held)}] if held else []
        for number, (name, held) in enumerate(parts.items())
    }


NEW = as_label_studio_sends()


def boxes_of(*regions: Any) -> list[LabelledBox]:
    """The boxes that are read of regions, whatever they are taken for."""
    read = [SmartTools().read({"result": [region]}, NEW, "7") for region in regions]
    return [box for click in read if click for box in click.drawn]


def answer(context: list[Any], found: list[Any], task: Any = NEW, tools: SmartTools | None = None) -> list[Any]:
    """The regions that come, by a prediction of those that are found."""
    click = (tools or SmartTools()).read({"result": context}, task, "7")
    if click is None:
        return []
    before = copy.deepcopy((found, task))
    meant = meant_boxes(click, {"result": found, "score": 0.5, "model_version": "bccd-1"})
    assert (found, task) == before
    if meant is None:
        return []
    if tools:
        tools.gave(meant, task, "7")
    assert meant["result"]
    assert meant["model_version"] == "bccd-1"
    return list(meant["result"])


def click_of(*drawn: LabelledBox) -> Click:
    return Click(drawn, ())


def places(regions: list[dict[str, Any]]) -> list[list[Any]]:
    return [[each["value"][key] for key in ("x", "y", "width", "height")] for each in regions]


FOUND = [
    region(60, 60, 15, 25, score=0.99),
    region(21, 21, 15, 25, score=0.8),
    region(20, 20, 15, 25, "RBC", score=0.9),
    region(19, 19, 15, 25, "Platelets", score=0.9),
]


def test_one_rectangle_brings_the_one_box_that_was_meant() -> None:
    assert answer([DRAWN], FOUND) == [FOUND[1]]


def test_what_comes_is_valid_and_has_score_and_version() -> None:
    prediction: Any = {"result": FOUND, "score": 0.9, "model_version": "bccd-1"}
    meant = meant_boxes(click_of(*boxes_of(DRAWN)), prediction)
    assert meant is not None
    assert (meant["score"], meant["model_version"]) == (0.8, "bccd-1")
    assert LabelInterface(CONFIG).validate_prediction(meant, return_errors=True) == []


@pytest.mark.parametrize(
    ("width", "comes"),
    [(10, False), (19.98, False), (20, True), (40, True), (79.9, True), (80, True), (80.02, False)],
)
def test_a_box_is_meant_that_overlaps_by_half(width: float, comes: bool) -> None:
    assert bool(answer([drawn(10, 10, width, 10)], [region(10, 10, 40, 10)])) is comes


@pytest.mark.parametrize("part", ["drafts", "annotations"])
@pytest.mark.parametrize(("width", "comes"), [(20, True), (28, True), (28.02, False), (40, False), (57.1, False)])
def test_a_box_that_is_there_already_does_not_come(part: str, width: float, comes: bool) -> None:
    task = as_label_studio_sends(**{part: [region(10, 10, width, 10)]})
    assert bool(answer([drawn(10, 10, 40, 10)], [region(10, 10, 40, 10)], task)) is comes


def test_of_several_boxes_the_one_drawn_closest_comes_whatever_its_score() -> None:
    found = [region(20, 20, 20, 28, score=0.9), region(20, 20, 15, 26, score=0.3), region(20, 20, 15, 30, score=0.6)]
    assert places(answer([DRAWN], found)) == [[20, 20, 15, 26]]


def test_of_two_boxes_equally_close_the_one_with_the_better_score_comes() -> None:
    found = [region(21, 20, 15, 25, score=0.4), region(19, 20, 15, 25, score=0.6)]
    assert places(answer([DRAWN], found)) == [[19, 20, 15, 25]]


def test_where_the_first_is_there_the_next_comes() -> None:
    found = [region(20, 20, 20, 20), region(26, 20, 20, 20)]
    there = as_label_studio_sends(drafts=[region(20, 20, 20, 20)])
    assert places(answer([drawn(21, 20, 20, 20)], found, there)) == [[26, 20, 20, 20]]
    there = as_label_studio_sends(drafts=[region(20, 20, 20, 20)], annotations=[region(26, 20, 20, 20)])
    assert answer([drawn(21, 20, 20, 20)], found, there) == []


def test_a_box_of_another_label_that_is_there_keeps_none_away() -> None:
    there = as_label_studio_sends(drafts=[region(21, 21, 15, 25, "RBC")])
    assert places(answer([DRAWN], FOUND, there)) == [[21, 21, 15, 25]]


def test_the_drawn_rectangle_itself_may_be_in_the_draft() -> None:
    exact = region(20, 20, 15, 25)
    assert places(answer([DRAWN], [exact], as_label_studio_sends(drafts=[DRAWN]))) == [[20, 20, 15, 25]]
    assert answer([DRAWN], [exact], as_label_studio_sends(drafts=[DRAWN | {"id": "earlier"}])) == []


# Several rectangles: a second click comes together with the first.

TWO = [drawn(10, 10, 20, 20), drawn(60, 60, 20, 20)]
CELLS = [region(61, 61, 20, 20, score=0.9), region(11, 11, 20, 20, score=0.4), region(40, 40, 20, 20, score=0.9)]


def test_each_rectangle_brings_its_box_in_the_order_they_were_drawn() -> None:
    assert places(answer(TWO, CELLS)) == [[11, 11, 20, 20], [61, 61, 20, 20]]
    assert places(answer(TWO[::-1], CELLS)) == [[61, 61, 20, 20], [11, 11, 20, 20]]


def test_the_score_is_that_of_what_comes() -> None:
    prediction: Any = {"result": CELLS, "score": 0.1, "model_version": "v"}
    meant = meant_boxes(click_of(*boxes_of(*TWO)), prediction)
    assert meant is not None
    assert meant["score"] == pytest.approx(0.65)


def test_what_an_earlier_rectangle_brought_is_not_brought_again_once_it_is_saved() -> None:
    [first] = answer(TWO[:1], CELLS)
    assert places(answer(TWO, CELLS, as_label_studio_sends(drafts=[TWO[0], first]))) == [[61, 61, 20, 20]]


def test_two_rectangles_on_one_cell_bring_it_once() -> None:
    assert len(answer([drawn(10, 10, 20, 20), drawn(12, 12, 20, 20)], CELLS)) == 1


def test_boxes_of_two_classes_that_become_one_label_are_one() -> None:
    """NMS is by class: a car and a truck may lie on each other, and both be vehicles."""
    found = [region(10, 10, 20, 20, score=0.9), region(10.5, 10, 20, 20, score=0.8)]
    assert len(answer([drawn(10, 10, 20, 20), drawn(10.5, 10, 20, 20)], found)) == 1


def test_an_older_rectangle_that_has_its_box_gets_no_other_one() -> None:
    found = [region(20, 20, 20, 20), region(26, 20, 20, 20), region(60, 60, 20, 20)]
    there = as_label_studio_sends(drafts=[region(20, 20, 20, 20)])
    context = [drawn(21, 20, 20, 20), drawn(60, 60, 20, 20)]
    assert places(answer(context, found, there)) == [[60, 60, 20, 20]]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_crowd_gives_each_rectangle_its_own(count: int) -> None:
    grid = [(x, y) for x in range(0, 80, 10) for y in range(0, 80, 10)]
    found = [region(x, y, 8, 8) for x, y in grid]
    context = [drawn(x + 0.5, y + 0.5, 8, 8) for x, y in grid[:count]]
    assert places(answer(context, found)) == [[x, y, 8, 8] for x, y in grid[:count]]


# Which control, image and label


@pytest.mark.parametrize(
    "other",
    [
        {"from_name": "other"},
        {"to_name": "second image"},
        {"item_index": 1},
        {"value": {**DRAWN["value"], "rectanglelabels": ["Unknown"]}},
        {"value": {**DRAWN["value"], "rectanglelabels": []}},
        {"type": "rectangle"},
    ],
)
def test_nothing_comes_for_another_control_image_page_or_label(other: dict[str, Any]) -> None:
    assert answer([DRAWN | other], FOUND) == []


def test_what_is_there_of_another_control_or_page_keeps_none_away() -> None:
    for other in ({"from_name": "other"}, {"to_name": "second image"}, {"item_index": 1}):
        assert answer([DRAWN], FOUND, as_label_studio_sends(drafts=[region(21, 21, 15, 25, **other)]))


def test_of_a_list_of_images_the_drawn_page_counts() -> None:
    pages = [region(20, 20, 15, 25, item_index=page, score=0.9 - page / 10) for page in range(3)]
    for page in range(3):
        assert answer([DRAWN | {"item_index": page}], pages)[0]["item_index"] == page
    assert answer([DRAWN], pages)[0]["item_index"] == 0  # as of one image


def test_a_rectangle_with_several_labels_brings_a_box_of_one_of_them() -> None:
    value = {**DRAWN["value"], "rectanglelabels": ["RBC", "WBC"]}
    assert answer([DRAWN | {"value": value}], FOUND)[0]["value"]["rectanglelabels"] == ["RBC"]


def test_labels_are_read_by_the_regions_type_and_the_parts_of_a_region_stay_together() -> None:
    """As `Labels` with `Rectangle` has them: two parts with one id."""

    def parts(id_: str, x: float) -> list[dict[str, Any]]:
        place = {"x": x, "y": 20, "width": 15, "height": 25, "rotation": 0}
        plain = {"id": id_, "to_name": "image", "original_width": 640, "original_height": 480}
        return [
            {**plain, "from_name": "rectangle", "type": "rectangle", "value": place},
            {**plain, "from_name": "label", "type": "labels", "value": {**place, "labels": ["WBC"]}, "score": 0.7},
        ]

    found = [*parts("one", 21), *parts("two", 60)]
    came = answer(parts("drawn", 20), found)
    assert [(part["type"], part["value"]["x"]) for part in came] == [("rectangle", 21), ("labels", 21)]
    assert len({part["id"] for part in came}) == 1
    assert answer(parts("drawn", 20), found, as_label_studio_sends(drafts=parts("there", 21))) == []


# Rectangles that are turned


def test_a_turned_rectangle_is_compared_in_pixels_around_its_corner() -> None:
    """A quarter turn around the top left corner; of percents of 640x480, width and height change places by 4:3."""
    upright = region(20, 20, 15, 40)  # 96 x 192 pixels
    turned = drawn(35, 20, 30, 20, rotation=90)  # 192 x 96, turned: from the right corner to the left and down
    assert overlap(turned, upright) == 1
    assert answer([turned], [upright])
    assert answer([turned | {"value": {**turned["value"], "rotation": 270}}], [upright]) == []


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    first, second = boxes_of(*({**each, "score": None} for each in (one, other)))
    assert first.overlap(second) == pytest.approx(second.overlap(first), abs=1e-5)
    return first.overlap(second)


def test_a_square_and_the_same_turned_by_an_eighth_share_an_octagon() -> None:
    size: dict[str, Any] = {"original_width": 100, "original_height": 100}
    half = 10 / math.sqrt(2)
    upright = region(40, 40, 20, 20, **size)
    turned = region(50, 50 - 2 * half, 20, 20, rotation=45, **size)
    shared = 2 * (math.sqrt(2) - 1) * 20**2
    assert overlap(upright, turned) == pytest.approx(shared / (800 - shared), abs=1e-6)


@pytest.mark.parametrize("rotation", [0, 1e-8, 44.99999999, 90, 123.4, 180, 359.99, -30, 720.5])
@pytest.mark.parametrize("by", [0, 1e-9, 1e-6, 1e-4])
def test_what_is_nearly_the_same_overlaps_nearly_whole(rotation: float, by: float) -> None:
    one = region(46.59, 26.12, 4.87, 36.39, rotation=rotation)
    other = region(46.59 + by, 26.12 - by, 4.87 + by, 36.39, rotation=rotation + by)
    assert overlap(one, other) == pytest.approx(1, abs=1e-3)


sides = st.floats(0.5, 60)
corners = st.floats(0, 90)
turns = st.one_of(st.sampled_from([0, 45, 90, 180, 270]), st.floats(-400, 400))


@given(x=corners, y=corners, width=sides, height=sides, rotation=turns, dx=corners, dy=corners)
def test_a_rectangle_moved_or_told_by_another_corner_overlaps_as_it_must(
    x: float, y: float, width: float, height: float, rotation: float, dx: float, dy: float
) -> None:
    one = region(x, y, width, height, rotation=rotation)
    assert overlap(one, one) == 1
    # The same rectangle, told by the next corner: sides change places, a quarter further.
    angle = math.radians(rotation)
    corner = (x + width * math.cos(angle), y + width * math.sin(angle) * SIZE[0] / SIZE[1])
    same = region(
        *corner, height * SIZE[1] / SIZE[0], width * SIZE[0] / SIZE[1], rotation=rotation + 90
    )  # fmt: skip
    assert overlap(one, same) == pytest.approx(1, abs=1e-5)
    if rotation % 180 == 0:
        assume(dx < width and dy < height)
        shared = (width - dx) * (height - dy)
        moved = region(x + dx, y + dy, width, height, rotation=rotation)
        assert overlap(one, moved) == pytest.approx(shared / (2 * width * height - shared), abs=1e-5)


def test_boxes_far_apart_share_nothing() -> None:
    assert overlap(region(0, 0, 10, 10, rotation=30), region(60, 60, 10, 10, rotation=200)) == 0


# What is on the page: it sends all its regions of the drawn one's label


def taken(box: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A box as the page sends it once it was accepted, with its score."""
    return box | {"origin": "manual"} | more


def test_what_was_accepted_or_predicted_comes_along_and_brings_nothing() -> None:
    boxes = [
        taken(CELLS[1]),
        taken(CELLS[2], origin="prediction"),
        taken(region(5, 70, 20, 20), origin="prediction-changed"),
    ]
    found = [*CELLS, region(5.1, 70, 20, 20)]
    assert places(answer([*boxes, TWO[1]], found)) == [[61, 61, 20, 20]]
    assert answer([*boxes, drawn(40.2, 40, 20, 20)], found) == []


@pytest.mark.parametrize("origin", ["prediction", "prediction-changed"])
def test_what_came_of_a_prediction_of_somebody_elses_has_no_score_but_an_origin(origin: str) -> None:
    older = {key: value for key, value in CELLS[1].items() if key != "score"} | {"origin": origin}
    assert places(answer([older, TWO[1]], CELLS)) == [[61, 61, 20, 20]]


def test_a_box_drawn_by_hand_brings_nothing_once_it_is_saved() -> None:
    by_hand = drawn(12, 12, 20, 20, origin="manual")
    assert places(answer([by_hand, TWO[1]], CELLS, as_label_studio_sends(drafts=[by_hand]))) == [[61, 61, 20, 20]]


def test_an_earlier_rectangle_is_known_again_also_once_it_is_saved() -> None:
    """Its suggestion may wait for a tick still, and the page drops it for this answer."""
    tools = SmartTools()
    saved = as_label_studio_sends(drafts=TWO)
    assert places(answer(TWO[:1], CELLS, tools=tools)) == [[11, 11, 20, 20]]
    assert places(answer(TWO, CELLS, saved, tools)) == [[11, 11, 20, 20], [61, 61, 20, 20]]
    assert places(answer([TWO[0], taken(CELLS[1]), TWO[1]], CELLS, saved, tools)) == [[61, 61, 20, 20]]
    # The first is moved onto another cell.
    moved = [TWO[0] | {"value": VALUE | {"x": 40.5, "y": 40, "width": 20, "height": 20}}, taken(CELLS[1])]
    assert places(answer(moved, CELLS, saved, tools)) == [[40, 40, 20, 20]]


def test_where_a_drawn_rectangle_is_deleted_what_is_left_brings_nothing() -> None:
    """The page asks then, too, with the regions that are left."""
    tools = SmartTools()
    by_hand = drawn(12, 12, 20, 20, origin="manual")
    saved = as_label_studio_sends(drafts=[by_hand])
    assert answer([by_hand, TWO[1]], CELLS, saved, tools)
    assert answer([by_hand], CELLS, saved, tools) == []
    [box] = answer(TWO[:1], CELLS, tools=tools)
    assert answer([taken(box)], CELLS, tools=tools) == []
    assert answer([taken(CELLS[1])], CELLS, as_label_studio_sends(drafts=[CELLS[1]])) == []
    assert answer([taken(CELLS[1], origin="prediction")], CELLS) == []
    assert answer([taken(CELLS[1])], CELLS, as_label_studio_sends(predictions=[CELLS[1]])) == []
    assert answer([], CELLS) == []


def test_a_rectangle_that_is_gone_from_the_page_is_not_there_though_the_draft_has_it_yet() -> None:
    tools = SmartTools()
    first, second = drawn(61, 61, 20, 20), drawn(61.2, 61, 20, 20)
    assert answer([first], CELLS, tools=tools)
    assert answer([second], CELLS, as_label_studio_sends(drafts=[first]), tools)
    assert answer([second], CELLS, as_label_studio_sends(drafts=[first])) == []


def test_tasks_and_projects_are_told_apart() -> None:
    tools = SmartTools()
    saved = as_label_studio_sends(drafts=[DRAWN])
    task: Any
    for task, project in ((saved, "7"), ({**saved, "id": 85}, "7"), (saved, "8")):
        click = tools.read({"result": [DRAWN, TWO[0]]}, task, project)
        assert click
        assert [box.id for box in click.drawn] == [TWO[0]["id"]]
    click = tools.read({"result": [DRAWN, TWO[0]]}, {"id": 86}, "7")
    assert click
    assert len(click.drawn) == 2


def test_a_prediction_keeps_no_box_away() -> None:
    """It may be shown or not; what is a person's is in drafts and annotations."""
    assert answer([DRAWN], FOUND, as_label_studio_sends(predictions=FOUND))


def test_a_draft_stands_for_the_annotation_that_it_changes() -> None:
    held = {"id": 5, "result": [region(21, 21, 15, 25)]}
    emptied = {"id": 9, "annotation": 5, "result": []}
    task = {"id": 84, "annotations": [held], "drafts": [emptied]}
    assert answer([DRAWN], FOUND, task)
    assert answer([DRAWN], FOUND, {"id": 84, "annotations": [held], "drafts": [emptied | {"annotation": 6}]}) == []


# What is malformed or of another kind

NOT_NUMBERS: list[Any] = [None, "20", [], True, {}, 10**400]
ODD_REGIONS: list[Any] = [
    None,
    5,
    "text",
    [],
    {},
    {"type": "rectanglelabels"},
    DRAWN | {"value": None},
    DRAWN | {"value": []},
    DRAWN | {"value": {}},
    DRAWN | {"type": None},
    DRAWN | {"type": ["rectanglelabels"]},
    DRAWN | {"from_name": None},
    DRAWN | {"from_name": ["label"]},
    DRAWN | {"to_name": 5},
    DRAWN | {"item_index": "0"},
    DRAWN | {"item_index": True},
    DRAWN | {"item_index": -1},
    *(DRAWN | {"value": VALUE | {key: odd}} for key in ("x", "width") for odd in NOT_NUMBERS),
    *(DRAWN | {"value": VALUE | {key: float(odd)}} for key in ("y", "height") for odd in ("nan", "inf", "-inf")),
    *(DRAWN | {"value": VALUE | {"rotation": odd}} for odd in ("0", [0], math.nan, math.inf, 1e300)),
    DRAWN | {"value": VALUE | {"width": 0}},
    DRAWN | {"value": VALUE | {"width": -15}},
    DRAWN | {"value": {key: VALUE[key] for key in VALUE if key != "width"}},
    *(DRAWN | {"value": VALUE | {"rectanglelabels": odd}} for odd in (None, "WBC", [5], [["WBC"]], {"WBC": 1}, [])),
    DRAWN | {"type": "keypointlabels", "value": {"x": 25, "y": 25, "width": 0.3, "keypointlabels": ["WBC"]}},
    DRAWN | {"type": "brushlabels", "value": {"format": "rle", "rle": [1, 2], "brushlabels": ["WBC"]}},
    DRAWN | {"type": "polygonlabels", "value": {"points": [[20, 20], [35, 20], [35, 45]], "polygonlabels": ["WBC"]}},
    DRAWN
    | {"type": "ellipselabels", "value": {"x": 27, "y": 32, "radiusX": 8, "radiusY": 12, "ellipselabels": ["WBC"]}},
    DRAWN | {"type": "choices", "value": VALUE | {"choices": ["WBC"]}, "from_name": "choice"},
]


@pytest.mark.parametrize("odd", ODD_REGIONS, ids=range(len(ODD_REGIONS)))
def test_what_is_malformed_or_no_rectangle_brings_nothing_and_disturbs_nobody(odd: Any) -> None:
    assert answer([odd], FOUND) == []
    assert places(answer([odd, DRAWN], FOUND)) == [[21, 21, 15, 25]]
    assert places(answer([DRAWN], [odd, *FOUND])) == [[21, 21, 15, 25]]
    for part in ("drafts", "annotations", "predictions"):
        assert places(answer([DRAWN], FOUND, as_label_studio_sends(**{part: [odd]}))) == [[21, 21, 15, 25]]


@pytest.mark.parametrize("context", [{}, {"result": None}, {"result": []}, {"result": {}}, {"result": "x"}, {"x": 1}])
def test_a_context_without_a_region_means_nothing(context: dict[str, Any]) -> None:
    """As comes where a drawn region was deleted."""
    assert SmartTools().read(context, NEW, "7") is None


@pytest.mark.parametrize(
    "odd", [None, 5, "text", {}, [None], [5], [[]], [{}], [{"result": None}], [{"id": [], "result": 5}]]
)
def test_drafts_and_annotations_of_any_shape_are_let_pass(odd: Any) -> None:
    task = {"id": 84, "drafts": odd, "annotations": odd, "predictions": odd}
    assert places(answer([DRAWN], FOUND, task)) == [[21, 21, 15, 25]]
    drafts = [{"annotation": odd, "result": []}]
    assert answer([DRAWN], FOUND, {"id": None, "drafts": drafts, "annotations": [{"id": odd, "result": odd}]})


@pytest.mark.parametrize("odd", [None, {}, {"result": None}, {"result": [None, 5]}])
def test_a_prediction_of_ones_own_may_look_like_anything(odd: Any) -> None:
    prediction: Any = odd or {}
    assert meant_boxes(click_of(*boxes_of(DRAWN)), prediction) is None


def test_sizes_are_told_by_either_or_taken_for_square() -> None:
    sizes = ("original_width", "original_height")
    bare = {key: value for key, value in FOUND[1].items() if key not in (*sizes, "id", "score")}
    assert answer([DRAWN], [bare]) == [bare]
    bare_drawn = {key: value for key, value in DRAWN.items() if key not in sizes}
    for odd in (None, "640", 0, -640, 10**12, 1.5, True):
        assert answer([bare_drawn | {"original_width": odd, "original_height": 480}], [bare])


def test_of_very_many_rectangles_the_newest_count() -> None:
    many = [drawn(60, 60, 15, 25) for _ in range(5000)]
    click = SmartTools().read({"result": [*many, DRAWN]}, NEW, "7")
    assert click
    assert len(click.drawn) == 50
    assert places(answer([*many, DRAWN], FOUND))[-1] == [21, 21, 15, 25]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["WBC", "label"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["result", "value", "type", "id", "from_name", "to_name", "x", "annotation"]),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(context=json_values, drafts=json_values, annotations=json_values, predictions=json_values, extra=json_values)
def test_whatever_comes_is_answered(context: Any, drafts: Any, annotations: Any, predictions: Any, extra: Any) -> None:
    task: Any = {"id": 84, "drafts": drafts, "annotations": annotations, "predictions": predictions}
    click = SmartTools().read({"result": [context, DRAWN]}, task, "7")
    prediction: Any = {"result": [*FOUND, extra], "score": 0.5, "model_version": "v"}
    assert click
    meant = meant_boxes(click, prediction)
    assert meant is not None
    json.dumps(meant["result"][0], allow_nan=False)


def test_a_box_is_plain_data() -> None:
    [box] = boxes_of(DRAWN)
    assert box == LabelledBox("a1", ("label", "image", 0), frozenset({"WBC"}), (20, 20, 15, 25, 0), SIZE)
