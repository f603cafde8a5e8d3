"""What was chosen for which image, and what of it can't be trained on."""

from __future__ import annotations

from typing import Any

import pytest

from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.label_map import by_name, map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.training.annotations import NO_LABEL, UNKNOWN_LABEL, Drawn
from yolo_backend.training.chosen import ANY_PAGE, choices_by_image, of_several_images, read_chosen
from yolo_backend.training.snapshot import SnapshotError, trained_controls

SIZE_WH = (200, 100)
INSIDE = '<Choice value="Cat"/><Choice value="Dog" alias="hound"/>'
TREE = '<Choice value="Animal"><Choice value="Cat"/><Choice value="Other"/></Choice><Choice value="Other"/>'


def config(inside: str = INSIDE, tag: str = "Choices", attributes: str = "", image: str = 'value="$image"') -> str:
    return f'<View><Image name="image" {image}/><{tag} name="whole" toName="image" {attributes}>{inside}</{tag}></View>'


def controls_of(label_config: str) -> tuple[Control, ...]:
    return parse_labeling_config(label_config).controls


def region(*values: Any, type_: str = "choices", **more: Any) -> dict[str, Any]:
    """As Label Studio's page submits it: without the image's size."""
    return {"id": "r", "from_name": "whole", "to_name": "image", "type": type_, "value": {type_: list(values)}, **more}


def chosen(*regions: dict[str, Any], label_config: str = config(), data: Any = None, page: int = 0) -> Drawn:
    by_image = choices_by_image({"result": list(regions)}, controls_of(label_config), data or {})
    return read_chosen(by_image.get(("image", page), []), data or {}, SIZE_WH)


def test_a_choice_is_a_box_around_the_whole_image() -> None:
    (box,) = chosen(region("Cat")).boxes
    assert (box.label, box.origin) == ("Cat", "manual")
    assert box.box_xyxy == (0, 0, 200, 100)
    assert box.box_xywhr == (100, 50, 200, 100, 0)


def test_a_choice_with_an_alias_is_known_by_that() -> None:
    assert [box.label for box in chosen(region("hound")).boxes] == ["hound"]
    assert chosen(region("Dog")).faults == (UNKNOWN_LABEL.format("Dog"),)


@pytest.mark.parametrize(
    ("said", "origin"), [("prediction", "prediction"), ("prediction-changed",) * 2, (None, "manual")]
)
def test_how_a_choice_came_about(said: str | None, origin: str) -> None:
    assert [box.origin for box in chosen(region("Cat", origin=said)).boxes] == [origin]


def test_several_choices_are_several_and_the_same_one_counts_once() -> None:
    found = chosen(region("Cat", "hound", "Cat", "bird"), region("Cat", id="s"))
    assert [box.label for box in found.boxes] == ["Cat", "hound"]
    assert found.faults == (UNKNOWN_LABEL.format("bird"),)


@pytest.mark.parametrize(
    "empty",
    [region(), region(value={}), region(value=None), region(value={"choices": "Cat"})],
)
def test_a_region_without_a_choice_is_named(empty: dict[str, Any]) -> None:
    assert chosen(empty) == Drawn((), (NO_LABEL,))


@pytest.mark.parametrize(
    "other",
    [
        region("Cat", from_name="others"),
        region("Cat", to_name="other"),
        region("Cat", type_="taxonomy"),
        {"from_name": "whole", "to_name": "image", "type": "rectanglelabels", "value": {"rectanglelabels": ["Cat"]}},
    ],
)
def test_what_is_of_other_controls_is_not_looked_at(other: dict[str, Any]) -> None:
    assert chosen(other) == Drawn(())


def test_an_annotation_without_a_result_has_no_choices() -> None:
    assert choices_by_image({"result": None}, controls_of(config()), {}) == {}


def test_paths_of_a_taxonomy() -> None:
    tree = config(TREE, "Taxonomy")
    found = chosen(
        region(["Animal", "Cat"], ["Animal", "Other"], ["Other"], ["Animal", "Bird"], "Animal", type_="taxonomy"),
        label_config=tree,
    )
    assert [box.label for box in found.boxes] == ["Animal / Cat", "Animal / Other", "Other", "Animal"]
    assert found.faults == (UNKNOWN_LABEL.format("Animal / Bird"),)


def test_what_was_trained_for_a_taxonomy_serves_it_path_by_path() -> None:
    """Two paths may end alike, and a path may be what another one ends with."""
    (control,) = controls_of(config(TREE, "Taxonomy"))
    labels = [label.value for label in control.labels]
    assert set(labels) == {"Animal", "Animal / Cat", "Animal / Other", "Other"}
    for names in (labels, labels[::-1]):
        served = map_labels(by_name(control), dict(enumerate(names)), 0.5).label_of_class
        assert served == dict(enumerate(names))


def test_a_label_whose_name_is_the_alias_of_another_one_has_its_own_class() -> None:
    (control,) = controls_of(config('<Choice value="a" alias="b"/><Choice value="c" alias="a"/>'))
    assert map_labels(by_name(control), {0: "a", 1: "b"}, 0.5).label_of_class == {0: "a", 1: "b"}
    assert map_labels(by_name(control), {0: "c"}, 0.5).label_of_class == {0: "a"}, "renamed since"


def test_labels_that_come_with_the_task() -> None:
    of_task = config("", attributes='value="$kinds" model_score_threshold="0.5"')
    data = {"image": "a.jpg", "kinds": [{"value": "plane"}]}
    found = chosen(region("plane"), region("Cat", id="s"), label_config=of_task, data=data)
    assert [box.label for box in found.boxes] == ["plane"]
    assert found.faults == (UNKNOWN_LABEL.format("Cat"),)


PAGES = 'valueList="$pages"'


@pytest.mark.parametrize(
    ("attributes", "pages", "of_several"),
    [("", 3, 3), ("", 1, 0), ('perItem="true"', 3, 0), ('perItem="true"', 1, 0)],
)
def test_which_choices_are_about_several_images(attributes: str, pages: int, of_several: int) -> None:
    (control,) = controls_of(config(attributes=attributes, image=PAGES))
    assert of_several_images(control, {"pages": ["a.jpg"] * pages}) == of_several
    (control,) = controls_of(config(attributes=attributes))
    assert of_several_images(control, {"image": "a.jpg"}) == 0


def test_choices_are_found_by_their_page() -> None:
    each = config(attributes='perItem="true"', image=PAGES)
    data = {"pages": ["a.jpg", "b.jpg"]}
    regions = [region("Cat", item_index=0), region("hound", item_index=1, id="s"), region("Cat", id="t")]
    for page, label in enumerate(["Cat", "hound"]):
        assert [box.label for box in chosen(*regions, label_config=each, data=data, page=page).boxes] == [label]
    by_image = choices_by_image({"result": regions}, controls_of(each), data)
    assert by_image.keys() == {("image", 0), ("image", 1), ("image", ANY_PAGE)}
    one = {"pages": ["a.jpg"]}
    assert [box.label for box in chosen(region("Cat"), label_config=each, data=one).boxes] == ["Cat"]


# Which controls


def kinds(label_config: str) -> list[frozenset[str]]:
    return [kind_of(control).trained_with(control) for control in controls_of(label_config)]


@pytest.mark.parametrize("tag", ["Choices", "Taxonomy"])
def test_classification_weights_learn_what_an_image_is_and_not_what_is_found_in_it(tag: str) -> None:
    assert kinds(config(tag=tag)) == [frozenset({"classify"})]
    assert kinds(config(tag=tag, attributes='model_presence="true"')) == [frozenset()]


def with_two(one: str = "", other: str = "", image: str = "") -> str:
    more = f'<Image name="second" value="{image}"/>' if image else ""
    to_name = "second" if image else "image"
    return (
        f'<View><Image name="image" value="$image"/>{more}'
        f'<Choices name="kind" toName="image" {one}>{INSIDE}</Choices>'
        f'<Choices name="quality" toName="{to_name}" {other}><Choice value="sharp"/><Choice value="blurred"/></Choices>'
        "</View>"
    )


@pytest.mark.parametrize(
    ("label_config", "names"),
    [
        (with_two('model_score_threshold="0.5"'), ["kind"]),  # the other one is people's own
        (with_two("", 'model_skip="true"'), ["kind"]),
        (with_two("", 'model_path="sharp.pt"'), ["kind"]),
        (with_two("", 'perRegion="true"'), ["kind"]),
        (with_two("", 'model_presence="true"'), ["kind"]),
        (with_two(image="$other"), ["kind", "quality"]),
        (with_two('model_score_threshold="0.5"', image="$other"), ["kind", "quality"]),
    ],
)
def test_which_controls_are_trained(label_config: str, names: list[str]) -> None:
    assert [control.from_name for control in trained_controls(label_config, "classify")] == names


@pytest.mark.parametrize("asks", ["", 'model_score_threshold="0.5"'])
def test_two_controls_that_say_what_one_image_is_are_told_apart_first(asks: str) -> None:
    with pytest.raises(SnapshotError, match=r'"kind" and "quality" both ask for one: write model_skip="true"'):
        trained_controls(with_two(asks, asks), "classify")


def test_weights_that_learn_from_something_else_are_told_what_does() -> None:
    with pytest.raises(SnapshotError, match=r"The base are detect weights, .* name classify weights"):
        trained_controls(config(), "detect")
