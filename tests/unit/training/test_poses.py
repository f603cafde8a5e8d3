"""Which points people drew belong together, and what is said of the others."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from yolo_backend.training.annotations import (
    NO_LABEL,
    NO_PLACE,
    OUTSIDE,
    TWICE,
    UNKNOWN_LABEL,
    Drawn,
    regions_by_image,
)
from yolo_backend.training.base import known_classes
from yolo_backend.training.collected import Collected
from yolo_backend.training.labelled import LabelledBox, LabelledImage, Snapshot
from yolo_backend.training.learnt import learnt_labels, undrawn_points
from yolo_backend.training.poses import (
    IN_NONE,
    IN_SEVERAL,
    MIXED,
    NO_CLASS,
    NO_HULL,
    NO_NUMBER,
    NO_POINT_PLACE,
    NO_POINTS,
    OTHER_CLASS,
    POINT_TWICE,
    read_poses,
)
from yolo_backend.training.snapshot import SnapshotError, trained_controls

SIZE_WH = (200, 100)
IMAGE = '<Image name="image" value="$image"/>'
BOXES = """<RectangleLabels name="kp_bbox" toName="image"><Label value="dog"/><Label value="bird"/><Label value="car"/>
</RectangleLabels>"""
POINTS = """<KeyPointLabels name="kp" toName="image"><Label value="nose" predicted_values="dog" model_index="0"/>
<Label value="beak" predicted_values="bird" model_index="0"/>
<Label value="tail" predicted_values="dog,bird" model_index="1"/>
<Label value="ear" predicted_values="dog" model_index="2"/><Label value="other"/></KeyPointLabels>"""
WITH_BOXES = f"<View>{IMAGE}{BOXES}{POINTS}</View>"
WITHOUT_BOXES = f"<View>{IMAGE}{POINTS}</View>"
_numbers = itertools.count()


def region(from_name: str, type_: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": f"r{next(_numbers)}", "from_name": from_name, "to_name": "image", "type": type_, "value": value,
        "original_width": 200, "original_height": 100, "image_rotation": 0, "origin": "manual", **more,
    }  # fmt: skip


def box(label: str | None, left: float, top: float, right: float, bottom: float, **more: Any) -> dict[str, Any]:
    """In pixels."""
    place = {
        "x": left / 2, "y": top, "width": (right - left) / 2, "height": bottom - top,
        "rotation": more.pop("rotation", 0),
    }  # fmt: skip
    labels = {} if label is None else {"rectanglelabels": [label]}
    return region("kp_bbox", "rectanglelabels", {**place, **labels}, **more)


def point(label: str | None, x: float, y: float, **more: Any) -> dict[str, Any]:
    labels = {} if label is None else {"keypointlabels": [label]}
    return region("kp", "keypointlabels", {"x": x / 2, "y": y, "width": 0.5, **labels}, **more)


def drawn(*regions: dict[str, Any], config: str = WITH_BOXES, page: int = 0) -> Drawn:
    controls = trained_controls(config, "pose")
    annotation = {"id": 1, "result": list(regions)}
    found: Any = regions_by_image(annotation, controls).get(("image", page), [])
    return read_poses(found, SIZE_WH)


def points_of(found: Drawn) -> list[Any]:
    """Of each thing."""
    return [tuple(point and pytest.approx(point) for point in each.points) for each in found.boxes]


def things(found: Drawn) -> dict[str, tuple[tuple[float, ...] | None, ...]]:
    assert len({each.label for each in found.boxes}) == len(found.boxes)
    return {each.label: tuple(point and tuple(map(round, point)) for point in each.points) for each in found.boxes}


DOG, BIRD = box("dog", 10, 10, 90, 90, id="dog"), box("bird", 110, 20, 190, 80, id="bird")


def test_points_below_a_box_are_its_points() -> None:
    found = drawn(
        DOG,
        BIRD,
        point("tail", 80, 80, parentID="dog"),
        point("nose", 20, 30, parentID="dog"),
        point("tail", 30, 30, parentID="bird"),  # wherever it lies
    )
    assert things(found) == {"dog": ((20, 30), (80, 80), None), "bird": (None, (30, 30), None)}
    dog = found.boxes[0]
    assert dog.box_xyxy == pytest.approx((10, 10, 90, 90))
    assert dog.points[1] == pytest.approx((80, 80))
    assert (found.faults, found.point_faults) == ((), ())


def test_a_point_below_a_point_below_a_box_is_of_the_box() -> None:
    found = drawn(
        DOG, point("nose", 150, 50, id="n", parentID="dog"), point("tail", 150, 60, parentID="n"),
        point("ear", 20, 20, id="e", parentID="e"),
    )  # fmt: skip
    assert things(found) == {"dog": ((150, 50), (150, 60), (20, 20))}


def test_points_without_a_parent_are_of_the_box_in_which_they_lie() -> None:
    found = drawn(DOG, BIRD, point("nose", 20, 30), point("beak", 120, 30), point("tail", 150, 50))
    assert things(found) == {"dog": ((20, 30), None, None), "bird": ((120, 30), (150, 50), None)}


def test_a_box_without_points_is_one_of_which_none_is_seen() -> None:
    (dog,) = drawn(DOG).boxes
    assert dog.points == (None, None, None)


def test_a_point_a_little_beside_its_box_belongs_to_it() -> None:
    found = drawn(DOG, BIRD, point("nose", 6.5, 50), point("tail", 93.5, 50))
    assert things(found)["dog"] == ((6, 50), (94, 50), None)
    assert drawn(DOG, point("nose", 5.5, 50)).point_faults == (IN_NONE,)


def test_a_point_lies_in_a_rotated_box_as_it_was_drawn() -> None:
    """Of a bar from the top left to the bottom right, the other corners of its hull are outside."""
    turned = box("dog", 50, 10, 150, 20, rotation=45)
    inside = point("nose", 50 + 40 * math.sqrt(0.5) - 2, 10 + 40 * math.sqrt(0.5) + 2)
    assert things(drawn(turned, inside))["dog"][0] is not None
    assert drawn(turned, point("nose", 110, 20)).point_faults == (IN_NONE,)


def test_overlapping_boxes_are_told_apart_by_what_they_have_already() -> None:
    """The second nose lies in both, but the first box has one that lies in no other."""
    other = box("dog", 60, 10, 140, 90)
    both = drawn(
        DOG, other, point("nose", 75, 50), point("nose", 20, 50), point("tail", 130, 50), point("tail", 70, 30)
    )
    assert points_of(both) == [
        ((20, 50), (70, 30), None),
        ((75, 50), (130, 50), None),
    ]
    unclear = drawn(DOG, other, point("nose", 75, 50))
    assert points_of(unclear) == [(None, None, None)] * 2
    assert unclear.point_faults == (IN_SEVERAL,)


def test_boxes_of_another_class_don_t_claim_a_point() -> None:
    over = box("bird", 10, 10, 90, 90)
    assert things(drawn(DOG, over, point("nose", 50, 50))) == {
        "dog": ((50, 50), None, None), "bird": (None, None, None),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (point("nose", 210, 50), OUTSIDE),
        (point("nose", 20, -1), OUTSIDE),
        (point("nose", math.nan, 50), NO_POINT_PLACE),
        (region("kp", "keypointlabels", {"keypointlabels": ["nose"]}), NO_POINT_PLACE),
        (point(None, 50, 50), NO_LABEL),
        (point("paw", 50, 50), UNKNOWN_LABEL.format("paw")),
        (point("other", 50, 50), NO_NUMBER.format("other")),
        (point("beak", 50, 50, parentID="dog"), OTHER_CLASS),
        (point("beak", 50, 50), OTHER_CLASS),
        (point("tail", 50, 50, parentID="dog"), POINT_TWICE),
        (point("tail", 50, 50), POINT_TWICE),
        (point("nose", 195, 50), IN_NONE),
        (point("nose", 195, 50, parentID="gone"), IN_NONE),
    ],
)
def test_a_point_that_can_not_be_used_is_named_and_costs_no_other(wrong: dict[str, Any], fault: str) -> None:
    found = drawn(DOG, point("tail", 80, 80, parentID="dog"), wrong)
    assert things(found) == {"dog": (None, (80, 80), None)}
    assert found.point_faults == (fault,)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (box("dog", 210, 10, 250, 90), OUTSIDE),
        (box("dog", 10, 10, 10, 90), NO_PLACE),
        (box(None, 10, 10, 90, 90), NO_LABEL),
        (box("cow", 10, 10, 90, 90), UNKNOWN_LABEL.format("cow")),
        (box("car", 10, 10, 90, 90), NO_POINTS.format("car")),
        (box("bird", 110, 20, 190, 80), TWICE),
    ],
)
def test_a_box_that_can_not_be_used_is_named_and_costs_no_other(wrong: dict[str, Any], fault: str) -> None:
    found = drawn(BIRD, wrong)
    assert things(found) == {"bird": (None, None, None)}
    assert found.faults == (fault,)


def test_points_below_a_box_that_was_drawn_twice_are_one_thing() -> None:
    again = box("dog", 10, 10, 90, 90, id="again")
    found = drawn(DOG, again, point("nose", 20, 20, parentID="dog"), point("tail", 30, 30, parentID="again"))
    assert things(found) == {"dog": ((20, 20), (30, 30), None)}
    assert found.faults == (TWICE,)


def test_what_others_drew_is_left_alone() -> None:
    other = region("else", "keypointlabels", {"x": 5, "y": 5, "keypointlabels": ["nose"]})
    brush = region("kp", "brushlabels", {"brushlabels": ["nose"]})
    found = drawn(DOG, other, brush)
    assert (found.faults, found.point_faults) == ((), ())


def test_points_without_boxes_are_one_thing_with_a_margin() -> None:
    found = drawn(point("nose", 20, 30), point("tail", 120, 50), config=WITHOUT_BOXES)
    (dog,) = found.boxes
    assert dog.label == "dog"
    assert dog.box_xyxy == pytest.approx((10, 20, 130, 60))
    assert dog.box_xywhr == pytest.approx((70, 40, 120, 40, 0))
    at_edge = drawn(point("nose", 0, 0), point("ear", 200, 0), config=WITHOUT_BOXES).boxes[0]
    assert at_edge.box_xyxy == pytest.approx((0, 0, 200, 20))


def test_also_where_there_could_be_boxes() -> None:
    assert things(drawn(point("nose", 20, 30), point("ear", 120, 50))) == {"dog": ((20, 30), None, (120, 50))}


def test_things_of_two_classes_without_boxes_are_two_if_their_labels_say_so() -> None:
    config = WITHOUT_BOXES.replace('"dog,bird"', '"bird"')
    points = [point("nose", 20, 30), point("ear", 60, 50), point("beak", 120, 30), point("tail", 180, 60)]
    assert things(drawn(*points, config=config)) == {
        "dog": ((20, 30), None, (60, 50)), "bird": ((120, 30), (180, 60), None),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("points", "fault"),
    [
        ([point("nose", 20, 30), point("nose", 120, 30), point("ear", 20, 60)], MIXED),
        ([point("nose", 20, 30), point("beak", 120, 30), point("tail", 20, 60)], MIXED),
        ([point("tail", 20, 30)], NO_CLASS),
        ([point("nose", 20, 30)], NO_HULL),
        ([point("nose", 20, 30), point("ear", 21, 31)], NO_HULL),
    ],
)
def test_points_of_which_it_is_not_known_what_they_are_of(points: list[dict[str, Any]], fault: str) -> None:
    found = drawn(*points, config=WITHOUT_BOXES)
    assert found.boxes == ()
    assert found.point_faults == (fault,) * len(points)


def test_predicted_points_without_boxes_are_known_by_their_ids() -> None:
    ids = ("0123456789", "0123456789-1", "abcdef0123-0", "abcdef0123-2", "Zabc_123-4")
    places = [("nose", 20), ("tail", 60), ("nose", 120), ("ear", 160), ("nose", 190)]
    points = [
        point(label, x, 20 + number * 10, id=id_, origin="prediction")
        for number, (id_, (label, x)) in enumerate(zip(ids, places, strict=True))
    ]
    found = drawn(*points, config=WITHOUT_BOXES)
    assert points_of(found) == [
        ((20, 20), (60, 30), None),
        ((120, 40), None, (160, 50)),
    ]
    assert found.point_faults == (MIXED,)
    assert {each.origin for each in found.boxes} == {"prediction"}


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (("manual", "manual"), "manual"),
        (("prediction", "prediction"), "prediction"),
        (("prediction", "prediction-changed"), "prediction-changed"),
        (("prediction", "manual"), "prediction-changed"),
    ],
)
def test_a_thing_is_as_it_was_predicted_only_if_all_of_it_is(origins: tuple[str, str], origin: str) -> None:
    its_box = box("dog", 10, 10, 90, 90, id="d", origin=origins[0])
    (found,) = drawn(its_box, point("nose", 20, 20, parentID="d", origin=origins[1])).boxes
    assert found.origin == origin


def test_a_page_has_its_own_points() -> None:
    config = WITH_BOXES.replace('value="$image"', 'valueList="$pages"')
    second = [{**DOG, "item_index": 1}, {**point("nose", 20, 30, parentID="dog"), "item_index": 1}]
    first = [{**point("nose", 40, 40), "item_index": 0}, {**point("ear", 70, 50), "item_index": 0}]
    assert things(drawn(*second, *first, config=config, page=1)) == {"dog": ((20, 30), None, None)}
    assert things(drawn(*second, *first, config=config, page=0)) == {"dog": ((40, 40), None, (70, 50))}


def test_a_turned_page_is_told() -> None:
    assert drawn({**DOG, "image_rotation": 90}).is_turned
    assert drawn({**DOG, "original_width": 100}).is_of_another
    assert not drawn(DOG).is_turned


def test_two_controls_on_an_image_have_things_of_their_own() -> None:
    more = POINTS.replace('name="kp"', 'name="more"')
    config = f"<View>{IMAGE}{BOXES}{POINTS}{more}</View>"
    other = {**point("nose", 20, 20), "from_name": "more"}
    found = drawn(DOG, point("ear", 30, 30), other, {**point("ear", 70, 40), "from_name": "more"}, config=config)
    assert points_of(found) == [
        (None, None, (30, 30)),
        ((20, 20), None, (70, 40)),
    ]


# What a run makes of it


def image_of(*boxes: LabelledBox, number: int = 1) -> LabelledImage:
    return LabelledImage(number, number, "", f"{number:064x}", number << 40, Path(), SIZE_WH, boxes)


def test_labels_of_points_that_nobody_drew_are_told_once() -> None:
    (control,) = trained_controls(WITH_BOXES, "pose")
    dog, bird = drawn(DOG, BIRD, point("nose", 20, 20), point("tail", 150, 50)).boxes
    assert undrawn_points([control, control], [image_of(dog), image_of(bird)]) == ["beak", "ear"]
    assert undrawn_points([control], [image_of(bird)]) == ["nose", "beak", "ear"]
    assert undrawn_points([], [image_of(dog)]) == []


def test_a_run_learns_the_classes_of_the_points() -> None:
    (control,) = trained_controls(WITH_BOXES, "pose")
    dog, bird = drawn(DOG, BIRD, point("nose", 20, 20), point("tail", 150, 50)).boxes
    images = tuple(image_of(dog, bird, number=number) for number in range(1, 40))
    collected = Collected.of(Snapshot(images, ("dog", "bird")), [control], {}, ())
    assert (collected.classes.names, collected.labels, collected.points) == (("dog", "bird"), ("dog", "bird"), 3)
    (learnt,) = collected.controls
    assert [label.value for label in learnt.labels] == ["dog", "bird"]
    assert known_classes(collected.controls, {0: "cat", 1: "Dog", 2: "bird"}) == {"dog": (1,), "bird": (2,)}
    assert list(collected.remarks())[-1] == (
        "No training image has key points with these labels, so the model won't know where they are: beak, ear"
    )


@pytest.mark.parametrize(
    ("names", "known"),
    [
        ({0: "person", 1: "dog"}, {"object": (0, 1)}),
        ({0: "person", 1: "object"}, {"object": (1,)}),
    ],
)
def test_the_only_class_is_known_from_all_classes_of_the_base(
    names: dict[int, str], known: dict[str, tuple[int, ...]]
) -> None:
    (control,) = trained_controls(
        f'<View>{IMAGE}<KeyPointLabels name="kp" toName="image"><Label value="a" model_index="0"/></KeyPointLabels>'
        "</View>",
        "pose",
    )
    assert known_classes([replace(control, labels=learnt_labels(control))], names) == known


def test_labels_without_a_number_are_nothing_to_train() -> None:
    config = f'<View>{IMAGE}<KeyPointLabels name="kp" toName="image"><Label value="a"/></KeyPointLabels></View>'
    with pytest.raises(
        SnapshotError, match="which learn from KeyPointLabels with a model_index, and the labeling config"
    ):
        trained_controls(config, "pose")
