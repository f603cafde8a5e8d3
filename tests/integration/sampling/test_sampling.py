"""Scoring a pool and choosing from it, with the real detector and its real boxes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from benchmarks.sampling import comparison
from tests.harness.pictures import encode
from tests.harness.studio_client import BCCD_CONFIG, boxes
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.labels.regions import count_boxes
from yolo_backend.protocol import Task
from yolo_backend.sampling.pool import PoolImage, Unscored
from yolo_backend.sampling.scoring import PoolPredictor, Scored, Scoring, empty_by_default
from yolo_backend.sampling.thresholds import lower_thresholds
from yolo_backend.serving.project_predictor import ProjectPredictor, Stream, TaskOutcome
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings

SCORING = Scoring("entropy", "sum", floor=0.1, empty=0.5)


OTHER_THRESHOLDS = BCCD_CONFIG.replace('value="WBC"', 'value="WBC" model_score_threshold="0.05"').replace(
    'value="RBC"', 'value="RBC" model_score_threshold="0.6"'
)


WITH_RECTANGLE = BCCD_CONFIG.replace("RectangleLabels", "Labels").replace(
    "</View>", '<Rectangle name="place" toName="image"/></View>'
)
LABELS_OF_TASK = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image" value="$labels"/></View>"""


@pytest.fixture(scope="module")
def predictor(bccd_environment: Mapping[str, str]) -> Iterator[Predictor]:
    names = {"MODEL_NAME": "model_name", "MODEL_ROOT": "model_root", "MODEL_DIR": "model_dir"}
    predictor = Predictor(load_settings(**{names[key]: value for key, value in bccd_environment.items()}))
    yield predictor
    predictor.close()


@pytest.fixture(scope="module")
def plan(predictor: Predictor) -> ProjectPlan:
    return predictor.plan(BCCD_CONFIG, wait_s=None)


def score(
    predictor: Predictor, plan: ProjectPlan, images: Iterable[PoolImage], scoring: Scoring = SCORING
) -> list[Scored | Unscored]:
    return list(viewer(predictor, plan, predictor.stream).score(images, scoring))


def viewer(predictor: Predictor, plan: ProjectPlan, stream: Stream) -> PoolPredictor:
    return PoolPredictor(ProjectPredictor(plan, "7", stream, predictor.images), plan.controls[0].control)


@pytest.mark.parametrize("config", [BCCD_CONFIG, OTHER_THRESHOLDS])
def test_what_is_registered_is_what_the_server_says(predictor: Predictor, config: str, bccd_files: list[Path]) -> None:
    plan = predictor.plan(config, wait_s=None)
    images = [PoolImage(str(file), file) for file in bccd_files[:8]]
    tasks: list[Task] = [
        {"id": number, **image.to_task(plan.controls[0].control)} for number, image in enumerate(images)
    ]
    served = {task["id"]: outcome for task, outcome in predictor.stream(tasks, plan, "7")}
    more_boxes = 0
    for item in score(predictor, plan, images):
        assert isinstance(item, Scored)
        expected = served[images.index(item.image)]
        assert isinstance(expected, dict)
        registered = item.served
        assert boxes(registered) == boxes(expected)
        assert {key: registered[key] for key in ("score", "model_version")} == {
            key: expected[key] for key in ("score", "model_version")
        }
        assert item.above_threshold == len(expected["result"])
        more_boxes += len(item.prediction["result"]) - item.above_threshold
    assert more_boxes > 0


def test_only_thresholds_above_the_floor_are_lowered(predictor: Predictor) -> None:
    plan = predictor.plan(OTHER_THRESHOLDS, wait_s=None)
    lowered = lower_thresholds(plan, 0.1)
    assert dict(lowered.controls[0].label_map.threshold_of_class) == {0: 0.1, 1: 0.05, 2: 0.1}
    assert lowered.model_version == plan.model_version
    assert dict(plan.controls[0].label_map.threshold_of_class) == {0: 0.6, 1: 0.05, 2: 0.25}


@pytest.mark.parametrize("config", [WITH_RECTANGLE, LABELS_OF_TASK])
def test_other_controls_of_the_same_labels_are_as_uncertain(
    predictor: Predictor, plan: ProjectPlan, bccd_files: list[Path], config: str
) -> None:
    labels = [{"value": name} for name in ("RBC", "WBC", "Platelets")]
    image = PoolImage("a", bccd_files[0]).to_task(plan.controls[0].control)["data"]
    task: Task = {"id": 1, "data": {**image, "labels": labels}}
    scoring = Scoring("entropy", "sum", 0.1, 0.5)
    [expected] = score(predictor, plan, [PoolImage("a", task)], scoring)
    other = predictor.plan(config, wait_s=None)
    [item] = score(predictor, other, [PoolImage("a", task)], scoring)
    assert isinstance(item, Scored)
    assert isinstance(expected, Scored)
    assert (item.uncertainty, item.above_threshold) == (expected.uncertainty, expected.above_threshold)
    assert count_boxes(item.prediction["result"]) == len(expected.prediction["result"])
    registered = item.served
    assert count_boxes(registered["result"]) == item.above_threshold > 5
    assert LabelInterface(config).validate_prediction(registered, return_errors=True) == []
    assert empty_by_default("entropy", 0.1, other) == empty_by_default("entropy", 0.1, plan)


def test_thresholds_of_a_tasks_own_labels_count_as_they_do_on_the_server(
    predictor: Predictor, plan: ProjectPlan, bccd_files: list[Path]
) -> None:
    labels = [{"value": "RBC", "model_score_threshold": "0.6"}, {"value": "WBC"}]
    image = PoolImage("a", bccd_files[0]).to_task(plan.controls[0].control)["data"]
    task: Task = {"id": 1, "data": {**image, "labels": labels}}
    other = predictor.plan(LABELS_OF_TASK, wait_s=None)
    [(_, expected)] = predictor.stream([task], other, "7")
    assert isinstance(expected, dict)
    [item] = score(predictor, other, [PoolImage("a", task)])
    assert isinstance(item, Scored)
    assert boxes(item.served) == boxes(expected)
    assert item.above_threshold == len(expected["result"]) < count_boxes(item.prediction["result"])


def test_an_image_is_as_uncertain_as_its_boxes(predictor: Predictor, plan: ProjectPlan, bccd_files: list[Path]) -> None:
    [item] = score(predictor, plan, [PoolImage("a", bccd_files[0])], Scoring("threshold", "max", 0.1, 0.5))
    assert isinstance(item, Scored)
    scores = [region["score"] for region in item.prediction["result"]]
    expected = max(score / 0.25 if score < 0.25 else (1 - score) / 0.75 for score in scores)
    assert item.uncertainty == pytest.approx(expected, abs=1e-6)


def test_an_image_without_boxes_counts_as_asked(predictor: Predictor, plan: ProjectPlan, tmp_path: Path) -> None:
    black = tmp_path / "black.png"
    black.write_bytes(encode(Image.new("RGB", (64, 64))))
    [item] = score(predictor, plan, [PoolImage("black", black)])
    assert isinstance(item, Scored)
    assert (item.uncertainty, item.prediction["result"]) == (SCORING.empty, [])


def test_by_default_it_counts_as_a_box_on_the_floor(plan: ProjectPlan) -> None:
    assert empty_by_default("least-confidence", 0.1, plan) == pytest.approx(0.2)
    assert empty_by_default("threshold", 0.1, plan) == pytest.approx(0.4)


def test_by_default_it_counts_no_more_than_a_box_that_is_seen(predictor: Predictor) -> None:
    """With a threshold below the floor."""
    plan = predictor.plan(OTHER_THRESHOLDS, wait_s=None)
    assert empty_by_default("least-confidence", 0.1, plan) == pytest.approx(2 * 0.05)


def test_what_cannot_be_scored_says_why(
    predictor: Predictor, plan: ProjectPlan, bccd_files: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing")
    missing = tmp_path / "missing.jpg"
    images = [PoolImage(file.name, file) for file in (broken, missing, bccd_files[0])]
    outcomes = {item.image.name: item for item in score(predictor, plan, images)}
    assert isinstance(outcomes[bccd_files[0].name], Scored)
    assert str(outcomes["broken.jpg"]).startswith("broken.jpg: the image is broken")
    assert str(outcomes["missing.jpg"]) == "missing.jpg: the file can't be read: No such file or directory"


def test_tasks_are_taken_as_they_are_needed(predictor: Predictor, plan: ProjectPlan) -> None:
    taken: list[str] = []

    def images() -> Iterator[PoolImage]:
        for number in itertools.count():
            taken.append(str(number))
            yield PoolImage(str(number), f"https://example.org/{number}.jpg")

    def stream(tasks: Iterable[Task], plan: ProjectPlan, project: str) -> Iterator[TaskOutcome]:
        return ((task, Failure("7", None, FailureKind.NOT_FOUND, "gone")) for task in tasks)

    first = next(viewer(predictor, plan, stream).score(images(), SCORING))
    assert (first.image.name, taken) == ("0", ["0"])


def test_strategies_are_compared_from_the_same_start() -> None:
    runs: dict[str, list[dict[str, Any]]] = {
        "before": [{"map50": 0.5, "map50_95": 0.3}, {"map50": 0.6, "map50_95": 0.4}],
        "random": [{"map50": 0.7, "map50_95": 0.4, "boxes": 500}, {"map50": 0.7, "map50_95": 0.5, "boxes": 520}],
        "entropy-sum": [{"map50": 0.7, "map50_95": 0.42, "boxes": 600}, {"map50": 0.7, "map50_95": 0.49, "boxes": 610}],
    }
    assert comparison(runs).splitlines()[2:] == [
        "| before: trained on 20 |  | 0.550 ± 0.071 | 0.350 ± 0.071 |  |  |",
        "| random | 510 | 0.700 ± 0.000 | 0.450 ± 0.071 |  |  |",
        "| entropy-sum | 605 | 0.700 ± 0.000 | 0.455 ± 0.049 | +0.005 ± 0.021 | 1 of 2 |",
    ]
