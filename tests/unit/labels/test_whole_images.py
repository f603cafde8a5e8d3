"""Choices, taxonomies and numbers: what is said of a whole image, and what is left to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from yolo_backend.detection.detections import Detections, WeightsInfo
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.regions import make_regions, of_all_pages, task_score
from yolo_backend.protocol import Region

NAMES = {0: "cat", 1: "dog", 2: "bird"}
CLASSIFY = WeightsInfo("cls.pt", "classify", NAMES, "f1", (224, 224))
DETECT = WeightsInfo("det.pt", "detect", NAMES, "f2", (640, 640))
TREE = (
    '<Choice value="Animals"><Choice value="Dog" alias="hound"/><View><Choice value="Small"><Choice value="Cat"/>'
    '</Choice></View></Choice><Choice value="Things"><Choice value="Car"/></Choice>'
)
CHOICES = '<Choice value="Cat"/><Choice value="Dog" alias="hound"/><Choice value="Other" predicted_values="bird"/>'


def config(tag: str = "Choices", inside: str = CHOICES, attributes: str = "", image: str = 'value="$image"') -> str:
    return f'<View><Image name="image" {image}/><{tag} name="whole" toName="image" {attributes}>{inside}</{tag}></View>'


def number(attributes: str, image: str = 'value="$image"') -> str:
    return config("Number", "", attributes, image)


def control_of(label_config: str) -> Control:
    (control,) = parse_labeling_config(label_config).controls
    return control


def found(*pairs: tuple[int, float]) -> Detections:
    """Classes with scores, the best first."""
    count = len(pairs)
    boxes = np.tile(np.array([0, 0, 200, 100], np.float32), (count, 1))
    return Detections(
        boxes, np.array([score for _, score in pairs], np.float32), np.array([number for number, _ in pairs], np.int64)
    )


def regions_of(
    label_config: str, *pages: Detections, weights: WeightsInfo = CLASSIFY, threshold: float = 0.25
) -> list[Region]:
    """Of a task with one image, or of one with these pages."""
    control = control_of(label_config)
    label_map = kind_of(control).map_labels(control, weights, threshold)
    regions: list[Region] = []
    for page, detections in enumerate(pages):
        regions += make_regions(detections, control, label_map, (200, 100), page if control.is_list else None)
    regions = of_all_pages(regions, [control])
    prediction = {"result": regions, "score": task_score(regions), "model_version": "test"}
    assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []
    return regions


def values(regions: Sequence[Region]) -> list[Any]:
    return [region["value"][region["type"]] for region in regions]


# Choices


@pytest.mark.parametrize("choice", ["", 'choice="single"', 'choice="single-radio"'])
def test_a_single_choice_is_the_likeliest_with_a_label(choice: str) -> None:
    (region,) = regions_of(config(attributes=choice), found((1, 0.6), (0, 0.3), (2, 0.1)))
    assert region["value"] == {"choices": ["hound"]}
    assert (region["type"], region["from_name"], region["to_name"]) == ("choices", "whole", "image")
    assert region["score"] == pytest.approx(0.6)
    assert (region["original_width"], region["original_height"]) == (200, 100)


@pytest.mark.parametrize(
    "pairs", [[], [(1, 0.25), (0, 0.2)], [(1, 0.1)]], ids=["nothing", "just the threshold", "below"]
)
def test_below_the_threshold_nothing_is_chosen(pairs: list[tuple[int, float]]) -> None:
    assert regions_of(config(), found(*pairs)) == []


def test_the_second_best_is_not_chosen_in_the_place_of_a_best_that_is_below_its_own_threshold() -> None:
    inside = CHOICES.replace('value="Dog"', 'value="Dog" model_score_threshold="0.7"')
    assert regions_of(config(inside=inside), found((1, 0.6), (0, 0.3))) == []
    assert values(regions_of(config(inside=inside), found((1, 0.8), (0, 0.2)))) == [["hound"]]
    multiple = config(inside=inside, attributes='choice="multiple"')
    assert values(regions_of(multiple, found((1, 0.6), (0, 0.3)))) == [["Cat"]]


def test_a_class_without_a_label_is_no_rival() -> None:
    inside = '<Choice value="Cat"/>'
    assert values(regions_of(config(inside=inside), found((1, 0.6), (0, 0.3)))) == [["Cat"]]


def test_of_several_all_above_the_threshold_are_chosen() -> None:
    (region,) = regions_of(config(attributes='choice="multiple"'), found((1, 0.6), (2, 0.3), (0, 0.1)))
    assert region["value"] == {"choices": ["hound", "Other"]}
    assert region["score"] == pytest.approx(0.45)


def test_a_choice_inside_of_another_is_not_shown_by_the_page_and_not_chosen() -> None:
    inside = '<Choice value="Pets"><Choice value="cat"/></Choice><View><Choice value="dog"/></View>'
    assert [label.value for label in control_of(config(inside=inside)).labels] == ["Pets", "dog"]


# Presence


def test_with_presence_the_labels_that_are_found_are_chosen() -> None:
    boxes = found((2, 0.9), (0, 0.8), (0, 0.5), (1, 0.2))
    single = regions_of(config(attributes='model_presence="true"'), boxes, weights=DETECT)
    assert values(single) == [["Other"]]
    assert single[0]["score"] == pytest.approx(0.9)
    multiple = config(attributes='model_presence="true" choice="multiple"')
    (region,) = regions_of(multiple, boxes, weights=DETECT)
    assert region["value"] == {"choices": ["Other", "Cat"]}
    assert region["score"] == pytest.approx(0.85)  # of each label the best
    assert regions_of(multiple, found(), weights=DETECT) == []


def test_a_box_that_is_not_found_is_no_rival() -> None:
    inside = CHOICES.replace('value="Dog"', 'value="Dog" model_score_threshold="0.7"')
    label_config = config(inside=inside, attributes='model_presence="true"')
    assert values(regions_of(label_config, found((1, 0.6), (0, 0.3)), weights=DETECT)) == [["Cat"]]


# Taxonomies


def test_a_taxonomy_has_paths() -> None:
    (region,) = regions_of(config("Taxonomy", TREE), found((0, 0.6), (1, 0.3)))
    assert (region["type"], region["value"]) == ("taxonomy", {"taxonomy": [["Animals", "Small", "Cat"]]})
    (region,) = regions_of(config("Taxonomy", TREE, 'choice="multiple"'), found((0, 0.6), (1, 0.3)))
    assert region["value"] == {"taxonomy": [["Animals", "Small", "Cat"], ["Animals", "hound"]]}
    most = config("Taxonomy", TREE, 'choice="multiple" maxUsages="1"')
    assert values(regions_of(most, found((0, 0.6), (1, 0.3)))) == [[["Animals", "Small", "Cat"]]]


@pytest.mark.parametrize(
    ("attributes", "inside", "paths"),
    [
        (
            "",
            '<Choice value="cat"><Choice value="Old"><Choice value="cat"/></Choice></Choice>',
            [["cat", "Old", "cat"]],
        ),
        ("", '<Choice value="cat"><Choice value="Tom"/></Choice>', [["cat"]]),
        ('leafsOnly="true"', '<Choice value="cat"><Choice value="Tom"/></Choice>', None),
        ("", '<Choice value="A"/><Choice value="A"><Choice value="cat"/></Choice>', None),  # the page shows one A
    ],
)
def test_a_class_is_a_leaf_first(attributes: str, inside: str, paths: list[list[str]] | None) -> None:
    regions = regions_of(config("Taxonomy", inside, attributes), found((0, 0.6)))
    assert values(regions) == ([] if paths is None else [paths])


# Numbers


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('model_count="cat"', [2]),
        ('model_count="dog, Cat"', [3]),
        ('model_count="bird"', [0]),
        ('model_count="cat" model_score_threshold="0.6"', [1]),
        ('model_count="cat" min="1" max="2"', [2]),
        ('model_count="cat" max="1"', []),
        ('model_count="bird" min="1"', []),
        ('model_count="cat" step="2"', [2]),
        ('model_count="cat" min="1" step="2"', []),
    ],
)
def test_a_number_says_how_many_or_nothing_where_the_control_takes_no_such_number(
    attributes: str, expected: list[int]
) -> None:
    regions = regions_of(number(attributes), found((0, 0.9), (1, 0.7), (0, 0.5), (2, 0.1)), weights=DETECT)
    assert values(regions) == expected


def test_a_number_has_the_mean_score_of_what_it_counts_and_none_where_that_is_nothing() -> None:
    counted, none = (
        regions_of(number(f'model_count="{name}"'), found((0, 0.9), (0, 0.5)), weights=DETECT)
        for name in ("cat", "dog")
    )
    assert counted[0]["score"] == pytest.approx(0.7)
    assert "score" not in none[0]
    assert task_score(none) == 0.0


def test_the_score_of_a_number_of_all_pages_is_the_mean_of_all_that_is_counted() -> None:
    label_config = number('model_count="cat, dog"', 'valueList="$pages"')
    pages = found((1, 0.6)), found((0, 0.8), (1, 0.5), (0, 0.5)), found()
    (region,) = regions_of(label_config, *pages, weights=DETECT)
    assert region["value"] == {"number": 4}
    assert region["score"] == pytest.approx(0.6)


# Pages


PAGES = 'valueList="$pages"'


@pytest.mark.parametrize(
    ("label_config", "together"),
    [
        (config(image=PAGES), [["Cat"]]),
        (config(image=PAGES, attributes='choice="multiple"'), [["Cat", "hound"]]),
        (config("Taxonomy", TREE, image=PAGES), [[["Animals", "Small", "Cat"]]]),
        (config("Taxonomy", TREE, 'choice="multiple" maxUsages="1"', PAGES), [[["Animals", "Small", "Cat"]]]),
        (number('model_count="cat, dog"', PAGES), [3]),
        (number('model_count="cat, dog" max="2"', PAGES), []),
        (number('model_count="cat, dog" min="2"', PAGES), [3]),
    ],
)
def test_all_pages_have_one_region_that_is_of_no_page(label_config: str, together: list[Any]) -> None:
    weights = DETECT if "Number" in label_config else CLASSIFY
    regions = regions_of(label_config, found((1, 0.6)), found((0, 0.8), (1, 0.5)), weights=weights)
    assert values(regions) == together
    assert not any("item_index" in region for region in regions)


@pytest.mark.parametrize(
    ("label_config", "of_each"),
    [
        (config(image=PAGES, attributes='perItem="true"'), [["hound"], ["Cat"]]),
        (number('model_count="cat, dog" perItem="true"', PAGES), [1, 2]),
        (number('model_count="cat, dog" perItem="true" max="1"', PAGES), [1]),
    ],
)
def test_per_item_each_page_has_its_own(label_config: str, of_each: list[Any]) -> None:
    weights = DETECT if "Number" in label_config else CLASSIFY
    regions = regions_of(label_config, found((1, 0.6)), found((0, 0.8), (1, 0.5)), weights=weights)
    assert {region.get("item_index"): value for region, value in zip(regions, values(regions), strict=True)} == dict(
        enumerate(of_each)
    )
