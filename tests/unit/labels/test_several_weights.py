"""Several weights in MODEL_NAME: which serve a control, what is told of the others, and the version of it all."""

from __future__ import annotations

from typing import Any, cast

import pytest

from yolo_backend.detection.catalog import Catalog
from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.detection.pool import WeightsLoadingError
from yolo_backend.detection.weights import WeightsError
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.plans import ProjectPlan, ServedLabel, make_plan
from yolo_backend.settings import SettingsError, load_settings

OWN = "trained/7-00c0ffee/project-7.pt"
BY_HAND = "trained/8-00c0ffee/project-8.pt"
TRAINED_MASKS = "trained/9-00c0ffee/project-9.pt"
BOXES = '<RectangleLabels name="boxes" toName="image"><Label value="cat"/></RectangleLabels>'
PEOPLE = '<RectangleLabels name="people" toName="image"><Label value="person"/></RectangleLabels>'
POINTS = (
    '<KeyPointLabels name="points" toName="image"><Label value="nose" predicted_values="person" model_index="0"/>'
    "</KeyPointLabels>"
)
POINTS_BBOX = PEOPLE.replace('"people"', '"points_bbox"')
WHOLE = '<Choices name="whole" toName="image"><Choice value="indoors"/><Choice value="cat"/></Choices>'
HOW_MANY = '<Number name="how_many" toName="image" model_count="cat"/>'
THERE = WHOLE.replace('"whole"', '"there" model_presence="true"')

INFOS = {
    "det.pt": WeightsInfo("det.pt", "detect", {0: "cat", 1: "dog"}, "f1", (640, 640)),
    "pose.pt": WeightsInfo("pose.pt", "pose", {0: "person"}, "f2", (640, 640), points=2),
    "cls.pt": WeightsInfo("cls.pt", "classify", {0: "indoors", 1: "outdoors"}, "f3", (224, 224)),
    BY_HAND: WeightsInfo("project-8.pt", "segment", {0: "cat", 1: "person"}, "f5", (640, 640)),
    TRAINED_MASKS: WeightsInfo("project-9.pt", "segment", {0: "cat"}, "f6", (640, 640), thresholds={"cat": 0.4}),
    OWN: WeightsInfo("project-7.pt", "detect", {0: "cat"}, "f4", (640, 640), thresholds={"cat": 0.4}),
}

pytestmark = pytest.mark.usefixtures("clean_environment")


class Weights:
    """Knows weights of all kinds, without any file, and which of them were asked for."""

    def __init__(self, loading: str = "") -> None:
        self.loading = loading
        self.asked: list[str] = []

    def serving(self, name: str, instead: str) -> str:
        return name

    def wait_for_info(self, name: str, timeout_s: float | None) -> WeightsInfo:
        self.asked.append(name)
        if name == self.loading:
            raise WeightsLoadingError(f"Loading {name}, try again")
        if name not in INFOS:
            raise WeightsError(f"Weights {name} are not in MODEL_ROOT")
        return INFOS[name]


def plan_of(*tags: str, names: str, weights: Weights | None = None, **options: Any) -> ProjectPlan:
    config = f'<View><Image name="image" value="$image"/>{"".join(tags)}</View>'
    settings = load_settings(model_name=names)
    return make_plan(config, settings, cast("Catalog", weights or Weights()), **options)


def served_by(plan: ProjectPlan) -> dict[str, str]:
    return {served.control.from_name: served.weights_name for served in plan.controls}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("yolo26n.pt", ("yolo26n.pt",)),
        (" a.pt , b-seg.onnx,demo ", ("a.pt", "b-seg.onnx", "demo")),
        ("a.pt,a.pt", ("a.pt",)),
        ("cells, second try.pt", ("cells, second try.pt",)),
        ("a.pt,", ("a.pt",)),
        (",a.pt, ,b.onnx,", ("a.pt", "b.onnx")),
        (",", (",",)),
    ],
)
def test_names_are_read(text: str, names: tuple[str, ...]) -> None:
    assert load_settings(model_name=text).model_names == names


@pytest.mark.parametrize("text", ["yolo26n.pt, yolo26n-pose", "a.pt, yolo26n-pose, b.pt", "yolo26n-pose, a.onnx, b.pt"])
def test_an_entry_that_names_no_weights_is_told(text: str) -> None:
    with pytest.raises(SettingsError, match=r'^MODEL_NAME.* lists "yolo26n-pose", which ends neither in \.pt nor in'):
        load_settings(model_name=text)


@pytest.mark.parametrize("names", ["det.pt, pose.pt, cls.pt", "cls.pt,pose.pt,det.pt", "pose.pt, cls.pt, det.pt"])
def test_each_control_is_served_by_the_first_of_its_kind_that_has_a_class_for_it(names: str) -> None:
    plan = plan_of(BOXES, PEOPLE, POINTS, WHOLE, HOW_MANY, THERE, names=names)
    assert served_by(plan) == {
        "boxes": "det.pt",
        "people": "pose.pt",  # which find boxes, too
        "points": "pose.pt",
        "whole": "cls.pt",
        "how_many": "det.pt",
        "there": "cls.pt" if names.startswith("cls") or names.startswith("pose.pt, cls") else "det.pt",
    }
    assert plan.not_served == ()


def test_the_version_has_the_name_of_the_weights_that_serve_the_first_control() -> None:
    names = "cls.pt, pose.pt, det.pt"
    assert plan_of(BOXES, WHOLE, names=names).model_version.startswith("det-")
    assert plan_of(WHOLE, BOXES, names=names).model_version.startswith("cls-")
    # Which others are listed changes nothing.
    assert plan_of(BOXES, names=names).model_version == plan_of(BOXES, names="det.pt").model_version


def test_what_no_weights_can_serve_is_told_and_the_others_are_served() -> None:
    plan = plan_of(BOXES, POINTS, HOW_MANY, names="det.pt")
    assert served_by(plan) == {"boxes": "det.pt", "how_many": "det.pt"}
    assert plan.not_served == (
        'KeyPointLabels "points" wants pose weights, and det.pt are detect weights: name pose weights in model_path, '
        "or beside them in MODEL_NAME",
    )
    plan = plan_of(BOXES, HOW_MANY, WHOLE, names="cls.pt")
    assert served_by(plan) == {"whole": "cls.pt"}
    assert plan.not_served == (
        'cls.pt are classify weights, which find no places for "boxes": name others in model_path, or beside them in '
        "MODEL_NAME",
        'Number "how_many" counts boxes, and cls.pt are classify weights, which find none: name others',
    )


@pytest.mark.parametrize(
    ("choices", "names"),
    [(WHOLE, "det.pt"), (WHOLE.replace("indoors", "a").replace("cat", "b"), "det.pt, cls.pt")],
    ids=["other weights", "no class"],
)
def test_choices_that_nobody_asks_for_are_peoples_own_and_nothing_is_said(choices: str, names: str) -> None:
    plan = plan_of(BOXES, choices, names=names)
    assert (served_by(plan), plan.not_served) == ({"boxes": "det.pt"}, ())
    assert plan.model_version == plan_of(BOXES, names="det.pt").model_version
    with pytest.raises(LabelingConfigError, match=r"whole|None of the labels a, b"):
        plan_of(choices, names=names)  # beside nothing else it is said


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        (WHOLE.replace("<Choices", '<Choices model_score_threshold="0.3"'), 'Choices "whole" wants classification'),
        (WHOLE.replace('value="cat"', 'value="C" predicted_values="cat"'), 'Choices "whole" wants classification'),
        (THERE.replace("cat", "newt"), "None of the labels indoors, newt is a class of det.pt"),
    ],
)
def test_choices_that_somebody_asks_for_are_told(choices: str, sentence: str) -> None:
    (told,) = plan_of(BOXES, choices, names="det.pt").not_served
    assert told.startswith(sentence)
    assert len(told) <= 240


def test_weights_that_cannot_be_had_are_not_replaced_by_those_behind_them() -> None:
    plan = plan_of(BOXES, WHOLE, names="cls.pt, gone.pt, det.pt")
    assert served_by(plan) == {"whole": "cls.pt"}
    assert plan.not_served == ("Weights gone.pt are not in MODEL_ROOT",)
    with pytest.raises(WeightsLoadingError):
        plan_of(BOXES, WHOLE, names="cls.pt, pose.pt, det.pt", weights=Weights(loading="pose.pt"))


def test_weights_behind_those_that_serve_are_not_waited_for() -> None:
    weights = Weights(loading="pose.pt")
    assert served_by(plan_of(BOXES, names="det.pt, pose.pt", weights=weights)) == {"boxes": "det.pt"}
    assert weights.asked == ["det.pt"]


def test_a_model_path_comes_before_all_of_them() -> None:
    boxes = BOXES.replace("<RectangleLabels", '<RectangleLabels model_path="pose.pt"')
    plan = plan_of(boxes, HOW_MANY, names="det.pt, pose.pt")
    assert served_by(plan) == {"how_many": "det.pt"}
    assert plan.not_served[0].startswith("None of the labels cat is a class of pose.pt")


def test_trained_weights_stand_for_the_first() -> None:
    plan = plan_of(BOXES, POINTS, names="det.pt, pose.pt", trained=OWN)
    assert served_by(plan) == {"boxes": OWN, "points": "pose.pt"}


# The boxes of key points


@pytest.mark.parametrize(
    ("tag", "names", "expected"),
    [
        (WHOLE, "cls.pt, det.pt", "cls.pt"),
        (POINTS, "pose.pt, det.pt", "pose.pt"),
        (HOW_MANY.replace("cat", "dog"), "det.pt", "det.pt"),
        (HOW_MANY, "det.pt", "det.pt"),
        (HOW_MANY, "pose.pt", OWN),
    ],
)
def test_a_trained_model_takes_no_weights_from_controls_that_none_is_trained_for(
    tag: str, names: str, expected: str
) -> None:
    plan = plan_of(BOXES, tag, names=names, trained=OWN)
    assert plan.not_served == ()
    boxes, other = plan.controls
    assert (boxes.weights_name, other.weights_name) == (OWN, expected)


def test_weights_published_by_hand_serve_all_controls_that_they_can() -> None:
    plan = plan_of(BOXES, PEOPLE, POINTS, WHOLE, HOW_MANY, names="det.pt, pose.pt, cls.pt", trained=BY_HAND)
    assert served_by(plan) == {
        "boxes": BY_HAND,
        "people": BY_HAND,
        "points": "pose.pt",
        "whole": "cls.pt",
        "how_many": BY_HAND,
    }
    assert plan.not_served == ()


def test_a_trained_model_of_another_kind_leaves_the_boxes_to_the_weights_of_the_settings() -> None:
    outlines = BOXES.replace("RectangleLabels", "PolygonLabels").replace("boxes", "outlines")
    plan = plan_of(BOXES, outlines, names="det.pt", trained=TRAINED_MASKS)
    assert served_by(plan) == {"boxes": "det.pt", "outlines": TRAINED_MASKS}


def test_the_boxes_of_points_are_served_with_them_only() -> None:
    plan = plan_of(POINTS_BBOX, POINTS, names="pose.pt")
    assert served_by(plan) == {"points": "pose.pt"}
    assert plan.not_served == ()
    assert plan.controls[0].label_map.label_of_class == {0: "person"}


@pytest.mark.parametrize("points", [POINTS, POINTS.replace("<KeyPointLabels", '<KeyPointLabels model_skip="true"'), ""])
def test_where_there_are_no_points_the_boxes_are_served_as_ever(points: str) -> None:
    boxes = POINTS_BBOX.replace("person", "cat")
    plan = plan_of(boxes, points, names="det.pt")
    assert served_by(plan) == {"points_bbox": "det.pt"}
    assert plan.model_version == plan_of(boxes, names="det.pt").model_version


def test_boxes_that_points_do_not_add_are_served_by_themselves() -> None:
    points = POINTS.replace("<KeyPointLabels", '<KeyPointLabels model_add_bboxes="false"')
    assert served_by(plan_of(POINTS_BBOX, points, names="pose.pt")) == {"points_bbox": "pose.pt", "points": "pose.pt"}


def test_what_becomes_of_points_is_shown() -> None:
    (served,) = plan_of(POINTS, names="pose.pt").controls
    assert served.served_labels == [ServedLabel("nose", ("person, point 0",), 0.25)]


# Versions


@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        (POINTS, POINTS.replace("model_index", 'background="red" model_index'), False),
        (POINTS, POINTS.replace('model_index="0"', 'model_index="1"'), True),
        (POINTS, POINTS.replace("<KeyPointLabels", '<KeyPointLabels model_point_size="2"'), True),
        (POINTS, POINTS.replace("<KeyPointLabels", '<KeyPointLabels model_point_threshold="0.5"'), True),
        (POINTS, POINTS.replace("<KeyPointLabels", '<KeyPointLabels model_point_threshold="0"'), False),
        (POINTS, POINTS_BBOX + POINTS, True),
        (POINTS_BBOX + POINTS, POINTS_BBOX.replace("person", "human") + POINTS, True),
        (POINTS_BBOX + POINTS, POINTS_BBOX.replace("</", '<Label value="other"/></', 1) + POINTS, False),
        (WHOLE, WHOLE.replace("<Choices", '<Choices choice="single-radio" required="true"'), False),
        (WHOLE, WHOLE.replace("<Choices", '<Choices choice="multiple"'), True),
        (WHOLE, WHOLE.replace("</", '<Choice value="Mars"/></', 1), False),
        (WHOLE, WHOLE.replace("</", '<Choice value="outdoors"/></', 1), True),
        (WHOLE, WHOLE.replace("Choices", "Taxonomy"), True),
        (HOW_MANY, HOW_MANY.replace("/>", ' min="0"/>'), True),
        (HOW_MANY, HOW_MANY.replace("cat", "cat, dog"), True),
        (HOW_MANY, HOW_MANY.replace("/>", ' hotkey="n"/>'), False),
        (THERE, THERE.replace("<Choices", '<Choices choice="multiple"'), True),
    ],
)
def test_a_version_depends_on_what_decides_about_regions_only(before: str, after: str, differs: bool) -> None:
    one, other = (plan_of(tags, names="det.pt, pose.pt, cls.pt").model_version for tags in (before, after))
    assert (one != other) == differs
