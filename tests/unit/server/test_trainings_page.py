"""What the status page tells of trainings: what runs, what came of it, and with which thresholds it serves."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.label_map import map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import ProjectPlan, ServedControl
from yolo_backend.server.status import ModelStatus, ProjectStatus, Status, as_json, render_page
from yolo_backend.training.asked import Asked
from yolo_backend.training.records import Comparison, ImageCounts, LabelScore, Options, Progress, Result, Run
from yolo_backend.training.trainings import ProjectTrainings

NOON = datetime.fromisoformat("2026-11-29T12:00:00+00:00").timestamp()
KEY = "7-3f9a1c2e"
RESULT = Result(
    "1",
    True,
    "it is better",
    "project-7-1a2b3c4d",
    ImageCounts(30, 10),
    {"nut": LabelScore(48, 0.9654, 0.9583, 0.25), "bolt": LabelScore(4)},
    Comparison(0.6, 0.75, 0.15, (0.1, 0.2)),
    Comparison(0.3, 0.5, 0.2, (0.1, 0.3)),
)
ENDED = Run("1", KEY, "ended", NOON - 600, NOON - 300, options=Options("demo", 30), result=RESULT, verdict="promote")
FITTING = Run(
    "2",
    KEY,
    "fitting",
    NOON - 60,
    progress=Progress("fitting", NOON - 10, 12, 48, 0.4234, 130),
    options=Options("demo", 30),
)


def text_of(item: ProjectTrainings | None, *, training_is_on: bool = True) -> str:
    """What a person reads in the section."""
    page = render_page(status(item, training_is_on=training_is_on))
    section = re.search(r'<section aria-labelledby="training">.*?</section>', page, re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", section[0])).split()) if section else ""


def status(item: ProjectTrainings | None, *, training_is_on: bool = True) -> Status:
    model = ModelStatus("demo", "LOADING")
    items = [item] if item else []
    return Status("YoloBackend", "1", model, NOON - 1000, training_is_on=training_is_on, trainings=items, at=NOON)


def test_before_anything_was_trained_it_is_said_what_to_do() -> None:
    assert "Label 40 images or more, then press Start Training" in text_of(None)
    assert text_of(None, training_is_on=False) == ""


def test_of_a_run_its_epoch_its_score_and_the_time_that_is_left() -> None:
    text = text_of(ProjectTrainings("7", [FITTING], None, running=FITTING))
    assert "Project 7 no trained model serves 22%" in text
    assert "Run 2, begun 1 min ago : it trains · epoch 12 of 48 · mAP50 so far 0.42 · about 2 min left" in text
    assert "under way" in text


def test_of_a_classifier_what_is_told_is_of_choices() -> None:
    """Its score so far is the share of images that it is right about."""
    fitting, ended = replace(FITTING, kind="classify"), replace(ENDED, kind="classify")
    text = text_of(ProjectTrainings("7", [fitting, ended], "1", running=fitting))
    assert "epoch 12 of 48 · right so far 0.42 ·" in text
    assert "Label Validation choices AP50" in text
    assert '<Choice value="nut" model_score_threshold="0.25"/>' in text


def test_of_a_run_that_collects_how_many_images_it_has() -> None:
    collecting = replace(FITTING, state="collecting", progress=Progress("collecting", NOON, 9, 40))
    text = text_of(ProjectTrainings("7", [collecting], None, running=collecting))
    assert "images and labels are collected · image 9 of 40" in text


def test_a_project_without_a_model_says_what_to_do() -> None:
    untrained = ProjectStatus("7", ProjectPlan((), "untrained", ("None of the labels is a class",)), NOON)
    page = html.unescape(render_page(replace(status(None), projects=[untrained])))
    assert "Nothing is trained yet for these labels, so its tasks get no predictions. Label 40 images or more" in page
    assert "Not served" not in page


def test_a_project_without_a_model_says_which_labels_a_training_is_for() -> None:
    """Those of the controls that the weights are of a kind for; beside them there may be others."""
    (control,) = parse_labeling_config(
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        '<Label value="nut"/><Label value="bolt"/></RectangleLabels></View>'
    ).controls
    weights = WeightsInfo("a.pt", "detect", {0: "car"}, "0" * 64, (640, 640))
    served = ServedControl(control, weights, "a.pt", map_labels(control, weights.class_names, 0.25), 0.25)
    untrained = ProjectStatus("7", ProjectPlan((), "untrained", without_class=(served,)), NOON)
    page = re.sub(r"</?bdi>", "", html.unescape(render_page(replace(status(None), projects=[untrained]))))
    assert "for the labels nut, bolt, so its tasks get no predictions. Label 40 images" in " ".join(page.split())


def test_a_page_with_a_run_is_loaded_anew_soon() -> None:
    assert 'content="5"' in render_page(status(ProjectTrainings("7", [FITTING], None, running=FITTING)))
    assert 'content="5"' in render_page(status(ProjectTrainings("7", [], None, asked=Asked(KEY, at=NOON))))
    assert 'content="30"' in render_page(status(ProjectTrainings("7", [ENDED], "1")))


def test_what_serves_is_told_by_label_and_its_thresholds_can_be_pasted() -> None:
    text = text_of(ProjectTrainings("7", [ENDED], "1"))
    assert "Project 7 the model of run 1 serves Run 1: it is better" in text
    assert "What serves: run 1, trained on 30 images and judged by 10 that it never saw" in text
    assert "bolt 4 – – – nut 48 0.97 0.96 0.25" in text
    assert '<Label value="nut" model_score_threshold="0.25"/>' in text
    assert '<Label value="bolt"' not in text, "it has no threshold of its own"
    assert "1 10 min ago 40 0.60 0.75 promoted" in text


def test_of_key_points_the_thresholds_belong_into_the_labels_of_the_points() -> None:
    text = text_of(ProjectTrainings("7", [replace(ENDED, kind="pose")], "1"))
    assert "write each into the labels of its class's points in the labeling config:" in text
    assert 'nut: model_score_threshold="0.25"' in text
    assert "<Label" not in text


def test_runs_of_several_kinds_are_told_apart_and_not_in_one_curve() -> None:
    boxes, outlines = ENDED, replace(ENDED, run="2", kind="segment", began_at=NOON - 60)
    for promoted, shown, other in (("1", "1", "2"), (None, "2", "1")):
        item = ProjectTrainings("7", [outlines, boxes], promoted)
        page = render_page(status(item))
        assert f"<title>Run {shown}: mAP50" in page
        assert f"<title>Run {other}: mAP50" not in page
        text = text_of(item)
        assert f"mAP50 of the {'detect' if promoted else 'segment'} runs; runs of other kinds" in text
        assert "Run Kind Begun" in text
        assert "2 segment 1 min ago" in text
        assert "1 detect 10 min ago" in text
    alike = ProjectTrainings("7", [replace(outlines, kind="obb"), boxes], "1")
    assert "Kind" not in text_of(alike)
    assert render_page(status(alike)).count("<title>Run ") == 2


def test_the_thresholds_of_many_labels_come_whole_a_line_each() -> None:
    names = [f"label {number} & more" for number in range(20)]
    result = replace(RESULT, labels={name: LabelScore(12, 0.5, 0.5, 0.4) for name in names})
    page = render_page(status(ProjectTrainings("7", [replace(ENDED, result=result)], "1")))
    (tags,) = re.findall(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)
    assert html.unescape(tags).split("\n") == [
        f'<Label value="label {number} &amp; more" model_score_threshold="0.4"/>' for number in range(20)
    ]


def test_what_was_refused_is_told_until_something_was_trained() -> None:
    refused = Asked(KEY, at=NOON - 700, refused="Label 10 images first")
    assert "did nothing" not in text_of(ProjectTrainings("7", [ENDED], "1", asked=refused))
    assert "waits" not in text_of(ProjectTrainings("7", [], None, asked=Asked(KEY, at=NOON)), training_is_on=False)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"state": "failed", "result": None, "failure": "The disk is full"}, "Run 1 failed: The disk is full"),
        ({"state": "cancelled", "result": None, "failure": "Somebody did"}, "Run 1 was cancelled: Somebody did"),
        (  # judged as better, and then nothing could be published
            {"state": "failed", "result": replace(RESULT, promoted=False), "failure": "The disk is full"},
            "Run 1 failed: The disk is full",
        ),
        ({"state": "failed", "result": replace(RESULT, promoted=False), "failure": "No room"}, "0.75 failed"),
        ({"verdict": "aside", "result": replace(RESULT, promoted=False)}, "0.75 kept aside"),
        ({"verdict": "refuse", "result": replace(RESULT, promoted=False)}, "0.75 refused"),
        ({"remarks": ("Task 3 is left out",)}, "Task 3 is left out"),
    ],
)
def test_what_came_of_a_run_is_told(changes: dict[str, Any], shown: str) -> None:
    assert shown in text_of(ProjectTrainings("7", [replace(ENDED, **changes)], None))


def test_a_run_whose_process_was_killed_was_cut_off() -> None:
    item = ProjectTrainings("7", [FITTING], None)
    assert "cut off" in text_of(item)
    assert as_json(status(item))["trainings"][0]["runs"][0]["state"] == "cut off"


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (ProjectTrainings("7", [], None, asked=Asked(KEY, at=NOON)), "asked 0 s ago , waits for its turn."),
        (ProjectTrainings("7", [FITTING], None, FITTING, Asked(KEY, at=NOON)), "waits for the end of this run."),
        (
            ProjectTrainings("7", [], None, asked=Asked(KEY, at=NOON, refused="Label 10 images first")),
            "did nothing: Label 10 images first",
        ),
        (ProjectTrainings("7", [ENDED], ""), "a model that was published by hand serves"),
    ],
)
def test_what_was_asked_for_is_told(item: ProjectTrainings, shown: str) -> None:
    assert shown in text_of(item)


def test_programs_read_the_same() -> None:
    (told,) = as_json(status(ProjectTrainings("7", [FITTING, ENDED], "1", FITTING)))["trainings"]
    assert (told["project"], told["promoted"], told["running"]) == ("7", "1", "2")
    assert [run["run"] for run in told["runs"]] == ["2", "1"]
    assert told["runs"][0]["progress"]["epoch"] == 12
    assert told["runs"][1]["result"]["map50"] == {
        "current": 0.6,
        "candidate": 0.75,
        "difference": 0.15,
        "interval": (0.1, 0.2),
    }


def test_what_strangers_named_is_only_text() -> None:
    hostile = '<script>alert("x")</script>'
    result = replace(RESULT, reason=hostile, labels={hostile: LabelScore(1, 0.5, 0.5, 0.5)})
    page = render_page(status(ProjectTrainings(hostile, [replace(ENDED, result=result, remarks=(hostile,))], "1")))
    assert hostile not in page
    assert html.escape(hostile, quote=False) in page.replace("&#34;", '"').replace("&quot;", '"')
