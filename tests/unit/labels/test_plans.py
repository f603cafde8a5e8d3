"""Plans: what the version depends on, and controls that have no class yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from tests.fakes.ellipses import ellipse_config, serve_ellipses
from yolo_backend.detection.catalog import Catalog
from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.detection.weights import WeightsError
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.plans import ProjectPlan, ServedLabel, make_plan
from yolo_backend.settings import load_settings

OWN = "trained/7-00c0ffee/project-7.pt"
IMAGE = '<Image name="image" value="$image"/>'
LABELS = '<Label value="cat"/><Label value="Dog" model_score_threshold="0.5"/>'
RECTANGLES = f'<RectangleLabels name="label" toName="image">{LABELS}</RectangleLabels>'
LABELS_AND_RECTANGLE = RECTANGLES.replace("RectangleLabels", "Labels") + '<Rectangle name="box" toName="image"/>'
WITHOUT_CLASS = '<RectangleLabels name="new" toName="image"><Label value="Newt"/></RectangleLabels>'
EMPTY = '<RectangleLabels name="empty" toName="image"></RectangleLabels>'
MISSING = f'<RectangleLabels name="gone" toName="image" model_path="missing.pt">{LABELS}</RectangleLabels>'
NONE_MATCHES = (
    "None of the labels Newt is a class of yolo11n.pt, which has cat, dog, bird: rename a label, or give it "
    'predicted_values="<a class>"'
)

pytestmark = pytest.mark.usefixtures("clean_environment")


class Weights:
    """Says of all weights the same, without any file, but of those that were trained for a project."""

    info = WeightsInfo("yolo11n.pt", "detect", {0: "cat", 1: "dog", 2: "bird"}, "f1", (640, 640))
    trained = WeightsInfo("project-7.pt", "detect", {0: "Newt", 1: "Dog"}, "f2", (640, 640), thresholds={"Newt": 0.125})

    def __init__(self, *, is_trained: bool = False) -> None:
        self.is_trained = is_trained

    def serving(self, name: str, instead: str) -> str:
        return name if self.is_trained else instead

    def wait_for_info(self, name: str, timeout_s: float | None) -> WeightsInfo:
        if name == "missing.pt":
            raise WeightsError("missing.pt is not there")
        return self.trained if name == OWN else self.info


def plan_of(*tags: str, training: str = "off", is_trained: bool = False, **options: Any) -> ProjectPlan:
    config = f"<View>{IMAGE}{''.join(tags)}</View>"
    settings = load_settings(model_name="yolo11n.pt", training=training)
    return make_plan(config, settings, cast("Catalog", Weights(is_trained=is_trained)), **options)


@pytest.mark.parametrize(
    ("tags", "version"),
    [
        (RECTANGLES, "yolo11n-9aebd339"),
        (RECTANGLES.replace(">", ' model_obb="false">', 1), "yolo11n-9aebd339"),
        (
            RECTANGLES.replace("RectangleLabels", "Labels") + '<Rectangle name="box" toName="image"/>',
            "yolo11n-915db3f5",
        ),
        ('<RectangleLabels name="label" toName="image" value="$labels"></RectangleLabels>', "yolo11n-4932ab11"),
        (RECTANGLES + RECTANGLES.replace('"label"', '"other"'), "yolo11n-f7b755af"),
    ],
)
def test_a_release_does_not_have_everything_predicted_anew(tags: str, version: str) -> None:
    """The versions are those of the first release."""
    assert plan_of(tags).model_version == version


def test_a_kind_of_its_own_has_versions_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_ellipses(monkeypatch)
    ellipses = RECTANGLES.replace("RectangleLabels", "EllipseLabels")
    versions = {
        plan_of(tags).model_version
        for tags in (RECTANGLES, ellipses, ellipses.replace(" toName", ' model_pupil="true" toName'))
    }
    assert len(versions) == 3


def test_a_kind_may_refuse_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_ellipses(monkeypatch)
    info = WeightsInfo("yolo11n.pt", "detect", dict.fromkeys(range(4), "RBC"), "f1", (8, 8))
    monkeypatch.setattr(Weights, "wait_for_info", lambda *_: info)
    config = ellipse_config('model_pupil="true"').removeprefix(f"<View>{IMAGE}").removesuffix("</View>")
    with pytest.raises(LabelingConfigError, match=r"^yolo11n.pt have too many classes for eyes$"):
        plan_of(config)


# Controls without a class


@pytest.mark.parametrize("options", [{}, {"training": "on"}])
def test_beside_one_that_is_served_one_without_class_is_listed_apart(options: dict[str, Any]) -> None:
    plan = plan_of(RECTANGLES, WITHOUT_CLASS, **options)
    assert [served.control.from_name for served in plan.controls] == ["label"]
    assert [served.control.from_name for served in plan.without_class] == ["new"]
    assert plan.without_class[0].weights_name == "yolo11n.pt"
    assert plan.without_class[0].label_map.labels_without_class == ("Newt",)
    assert plan.not_served == (NONE_MATCHES,)


def test_one_without_class_changes_nothing_about_the_version_of_the_others() -> None:
    assert plan_of(WITHOUT_CLASS, RECTANGLES).model_version == plan_of(RECTANGLES).model_version


def test_where_nothing_has_a_class_nothing_is_served() -> None:
    with pytest.raises(LabelingConfigError) as raised:
        plan_of(WITHOUT_CLASS)
    assert str(raised.value) == NONE_MATCHES


def test_where_nothing_has_a_class_a_training_can_begin() -> None:
    plan = plan_of(WITHOUT_CLASS, training="on")
    assert (plan.controls, plan.is_untrained, plan.model_version) == ((), True, "untrained")
    assert [served.control.from_name for served in plan.without_class] == ["new"]
    assert plan.not_served == (NONE_MATCHES,)


@pytest.mark.parametrize("options", [{}, {"training": "on"}])
@pytest.mark.parametrize(
    ("tags", "error", "sentence"),
    [
        (EMPTY, LabelingConfigError, 'The control "empty" has no Label'),
        (MISSING, WeightsError, "missing.pt is not there"),
        (MISSING + EMPTY, LabelingConfigError, "missing.pt is not there; The control"),
    ],
)
def test_without_labels_or_weights_there_is_no_plan(
    tags: str, error: type[Exception], sentence: str, options: dict[str, Any]
) -> None:
    with pytest.raises(error, match=sentence):
        plan_of(tags, **options)


def test_labels_that_come_with_the_tasks_are_served_and_may_have_a_class() -> None:
    plan = plan_of('<RectangleLabels name="label" toName="image" value="$labels"></RectangleLabels>')
    assert (len(plan.controls), plan.without_class) == (1, ())


def test_where_one_has_a_class_the_plan_is_the_same_with_training() -> None:
    plan = plan_of(WITHOUT_CLASS, RECTANGLES, training="on")
    assert plan == plan_of(WITHOUT_CLASS, RECTANGLES)
    assert not plan.is_untrained


def test_weights_that_are_not_there_beside_a_control_without_class_are_told() -> None:
    plan = plan_of(MISSING, WITHOUT_CLASS, training="on")
    assert plan.is_untrained
    assert plan.not_served == ("missing.pt is not there", NONE_MATCHES)


# A project's own weights


@pytest.mark.parametrize("training", ["off", "on"])
def test_a_project_s_own_weights_serve_its_controls_without_a_model_path(training: str) -> None:
    by_name = RECTANGLES.replace('"label"', '"named"').replace(">", ' model_path="cells.pt">', 1)
    plan = plan_of(WITHOUT_CLASS, by_name, RECTANGLES, training=training, is_trained=True, trained=OWN)
    served = {each.control.from_name: each for each in plan.controls}
    assert {name: each.weights_name for name, each in served.items()} == {"new": OWN, "named": "cells.pt", "label": OWN}
    assert served["new"].shown_weights == "project-7.pt"
    assert served["new"].served_labels == [ServedLabel("Newt", ("Newt",), 0.125)]
    assert [(each.label, each.threshold) for each in served["named"].served_labels] == [("cat", 0.25), ("Dog", 0.5)]
    assert plan.model_version.startswith("project-7-")


def test_what_the_base_calls_a_label_claims_no_class_of_the_project_s_own_weights() -> None:
    tags = WITHOUT_CLASS.replace('value="Newt"', 'value="Newt" predicted_values="Dog"').replace(
        "</RectangleLabels>", '<Label value="Dog"/></RectangleLabels>'
    )
    assert 'predicted_values="Dog"' in tags
    (own,) = plan_of(tags, is_trained=True, trained=OWN).controls
    assert own.label_map.label_of_class == {0: "Newt", 1: "Dog"}
    (base,) = plan_of(tags).controls
    assert base.label_map.label_of_class == {1: "Newt"}


def test_before_the_first_promotion_a_project_is_served_as_all_others() -> None:
    assert plan_of(RECTANGLES, trained=OWN) == plan_of(RECTANGLES)


def test_a_threshold_that_was_trained_is_part_of_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    version = plan_of(WITHOUT_CLASS, is_trained=True, trained=OWN).model_version
    monkeypatch.setattr(Weights, "trained", replace(Weights.trained, thresholds={"Newt": 0.25}))
    assert plan_of(WITHOUT_CLASS, is_trained=True, trained=OWN).model_version != version


def test_thresholds_that_were_trained_hold_for_labels_of_tasks_and_are_lowered_with_the_others() -> None:
    dynamic = '<RectangleLabels name="label" toName="image" value="$labels"></RectangleLabels>'
    plan = plan_of(dynamic, is_trained=True, trained=OWN)
    labels = [{"value": "Newt"}, {"value": "Dog"}]
    of_task, _ = plan.for_task({"labels": labels})
    assert [(each.label, each.threshold) for each in of_task.controls[0].served_labels] == [
        ("Newt", 0.125),
        ("Dog", 0.25),
    ]
    lowered, _ = replace(plan, controls=(plan.controls[0].lowered(0.2),)).for_task({"labels": labels})
    assert [(each.label, each.threshold) for each in lowered.controls[0].served_labels] == [
        ("Newt", 0.125),
        ("Dog", 0.2),
    ]


def test_own_weights_without_any_of_the_labels_are_told_by_the_file_s_name() -> None:
    other = WITHOUT_CLASS.replace("Newt", "Crab")
    with pytest.raises(
        LabelingConfigError, match=r"^None of the labels Crab is a class of project-7\.pt, which has Newt"
    ):
        plan_of(other, is_trained=True, trained=OWN)
    assert plan_of(other, is_trained=True, trained=OWN, training="on").model_version == "untrained"
